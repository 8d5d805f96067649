"""On a local Ray of two workers: one is killed, then the driver; started again, nothing is lost.

Ray's processes listen on every interface, so they run in a network namespace of their own, where
there is none but the loopback.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from fa_batch import prepare
from feedback_adapter.errors import PluginError

ALONE = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]
PROGRAM = "from feedback_adapter.cli import main; main()"
SHARDS = 12


def permitted() -> str:
    """Why no network namespace can be made here; nothing if it can."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return "there is no `unshare` or no `ip`"
    tried = subprocess.run([*ALONE, "ip link set lo up"], capture_output=True, text=True)
    return tried.stderr.strip() if tried.returncode else ""


def until(holds: Callable[[], bool], run: subprocess.Popen, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def processes_below(parent: int) -> dict[int, str]:
    """The processes that descend from one, and what they are called."""
    parents, names = {}, {}
    for folder in Path("/proc").iterdir():
        try:
            status = (folder / "stat").read_text()
            names[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace")
            parents[int(folder.name)] = int(status.rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
    below = {parent}
    while new := {child for child, own in parents.items() if own in below} - below:
        below |= new
    return {pid: names[pid] for pid in below - {parent}}


@pytest.mark.slow
def test_a_worker_and_the_driver_are_killed_and_no_row_is_lost(photos, checkpoint, tmp_path):
    pytest.importorskip("ray", reason="Ray isn't installed: pip install 'feedback-adapter[ray]'")
    if why := permitted():
        pytest.skip(f"Ray is tried in a network namespace only, and none can be made: {why}")
    folder, table = photos(2 * SHARDS), tmp_path / "known.csv"
    (folder / "p3.png").write_text("not a photo")
    table.write_text("file,dog\n" + "".join(f"p{i}.png,{i % 2}\n" for i in range(2 * SHARDS)))
    out = tmp_path / "ray"
    words = [
        sys.executable, "-c", PROGRAM, "batch", folder, "--evidence", table, "--checkpoint",
        checkpoint, "--out", out, "--engine", "ray", "--workers", 2, "--shard-size", 2,
        "--strategy", "residual", "--steps", 300, "--option", "patience=null",
    ]  # fmt: skip
    command = [*ALONE, 'ip link set lo up; exec "$@"', "sh", *map(str, words)]
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "RAY_worker_niceness": "0"}

    def made() -> int:
        return len(list(out.glob("shard-*.parquet")))

    def workers() -> list[int]:
        found = processes_below(run.pid)
        return [pid for pid, name in found.items() if name.startswith("ray::refine_shard")]

    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        try:
            until(lambda: made() >= 1 and len(workers()) >= 1, run)
            os.kill(workers()[0], signal.SIGKILL)
            killed_at = made()
            until(lambda: made() >= killed_at + 3, run)
            driver = min(processes_below(run.pid))
            os.kill(driver, signal.SIGKILL)
            run.wait(20)
        finally:
            run.kill()
    before = {path: path.stat().st_mtime_ns for path in out.glob("shard-*.parquet")}
    assert 4 <= len(before) < SHARDS
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a Ray task of one core
    try:
        for place in (out, tmp_path / "local"):  # one goes on, one does everything
            done = prepare(
                folder, place, checkpoint=str(checkpoint), evidence=table, shard_size=2,
                strategy="residual", options={"steps": 300, "patience": None},
            ).run()  # fmt: skip
            assert (done.rows, done.errors, done.shards) == (24, 1, SHARDS)
    finally:
        torch.set_num_threads(threads)
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())  # done once
    on_ray, local = pd.read_parquet(out), pd.read_parquet(tmp_path / "local")
    assert sorted(on_ray["id"]) == sorted(f"p{i}.png" for i in range(24))
    assert on_ray["error"].notna().sum() == 1
    pd.testing.assert_frame_equal(on_ray, local, check_exact=True)


def test_without_ray_it_is_said_what_to_install(photos, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "known.csv").write_text("file,dog\np0.png,1\n")
    job = prepare(
        photos(1), tmp_path / "out", checkpoint=str(checkpoint), evidence=tmp_path / "known.csv"
    )
    with pytest.raises(PluginError, match=r"pip install 'feedback-adapter\[ray\]'"):
        job.run("ray")
