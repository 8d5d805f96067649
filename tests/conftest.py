"""Fixtures for tests that install a plugin and run the program as a user would."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., str]
SCRIPT = Path(sys.executable).with_name("feedback-adapter")


@pytest.fixture(scope="session")
def install() -> Callable[[Path, Path], Run]:
    """Install a project into a folder of its own, offline, and get a way to run things there."""

    def installer(project: Path, target: Path) -> Run:
        _run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
             "--no-deps", "--no-index", "--no-build-isolation", "--target", target, project]
        )  # fmt: skip
        path = os.pathsep.join(filter(None, [str(target), os.environ.get("PYTHONPATH")]))
        env = {**os.environ, "PYTHONPATH": path, "FEEDBACK_ADAPTER_STRICT_PLUGINS": "1"}
        env |= {"COLUMNS": "120", "OMP_NUM_THREADS": "1"}

        def run(*words: str | Path, cwd: Path) -> str:
            programs = {"python": [sys.executable], "feedback-adapter": [SCRIPT]}
            return _run([*programs[str(words[0])], *words[1:]], cwd=cwd, env=env)

        return run

    return installer


def _run(words: list, **options) -> str:
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=300, **options
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def distribution() -> Callable[..., None]:
    """Install a distribution: a module, and metadata with one entry point."""

    def made(
        folder: Path, name: str, code: str, *, point: str | None = None,
        group: str = "feedback_adapter",
    ) -> None:  # fmt: skip
        module = name.replace("-", "_")
        (folder / f"{module}.py").write_text(code)
        info = folder / f"{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{point or name} = {module}\n")

    return made


@pytest.fixture(scope="session")
def program() -> Callable[..., subprocess.CompletedProcess]:
    """Run the command line in a fresh process, with the distributions of a folder installed."""

    def run(folder: Path, *words: str) -> subprocess.CompletedProcess:
        paths = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
        script = "from feedback_adapter.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=120,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    return run
