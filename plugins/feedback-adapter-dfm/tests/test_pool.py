"""The jobs of the tables: told of while they train, kept when they are done, and resumed."""

import io
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

fit = pytest.importorskip("fit")
pytest.importorskip("typer")
pool = pytest.importorskip("pool")
small = pytest.importorskip("small")
console = pytest.importorskip("rich.console")
triangle_task = pytest.importorskip("triangle_task")


def job(steps):
    task = {"side": 24, "steps": steps, "test": 4, "examples": 4}
    return pool.Job("triangles", "loop", 0, {"task": task, "sigmas": (1,), "device": "cpu"})


@pytest.mark.filterwarnings("ignore")
def test_a_training_is_told_of_and_goes_on_where_it_was_cut_off(tmp_path, monkeypatch):
    told = {}
    running = pool.Running(job(240), tmp_path, told)
    task, method = triangle_task.Task(side=24, steps=240, examples=4), small.METHODS["feedforward"]
    loss, calls = fit.trajectory_loss, []

    def counted(*args, **kwargs):
        calls.append(None)
        if len(calls) == 230:
            raise KeyboardInterrupt
        return loss(*args, **kwargs)

    monkeypatch.setattr(fit, "trajectory_loss", counted)
    with pytest.raises(KeyboardInterrupt):
        triangle_task.train(method, task, **running.training(1, 4))
    share, _ = told[running.job.file]
    assert share == pytest.approx((1 + 220 / 240) / 4)
    triangle_task.train(method, task, **running.training(1, 4))
    assert len(calls) == 230 + 40  # from the state after 200 steps
    assert told[running.job.file][0] == pytest.approx(2 / 4)
    running.done()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore")
def test_jobs_that_are_done_are_not_done_again(tmp_path):
    file = io.StringIO()
    for expected in ("1/1 triangles loop 0", ""):
        file.seek(0)
        file.truncate()
        quiet = console.Console(file=file)
        measured = pool.run([job(20)], small.work, tmp_path, console=quiet)
        assert expected in file.getvalue()
        assert len(measured) == 10  # two conditions, and the loop, cut, shuffled, at 1 and 12 looks
    assert "1/1" not in file.getvalue()
    rows = json.loads((tmp_path / "triangles.json").read_text())["rows"]
    assert {row["method"] for row in rows} >= {"loop", "loop, cut", "loop, shuffled"}
    assert not list(tmp_path.glob("states/*"))
