"""Every benchmark and recipe imports what it needs and says how it is called.

They are run by hand, some of them once in months, so that nothing else would notice that a module
they import has moved. What is only imported by them is looked at as they import it.
"""

import contextlib
import importlib
import json
import os
import runpy
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SLOW = ["timm", "feedback_adapter.adapter", "fa_evaluate.protocols", "lightning_fabric"]
FOLDERS = ["benchmarks", "zoo/recipes", "plugins/*/benchmarks", "plugins/*/recipes"]


def calls() -> list[list[str]]:
    """The arguments to call everything with."""
    files = [path for folder in FOLDERS for path in sorted(ROOT.glob(f"{folder}/*.py"))]
    run = [path for path in files if 'if __name__ == "__main__"' in path.read_text("utf-8")]
    found = [[str(path), "--help"] for path in run if path.name != "__main__.py"]
    recipes = str(ROOT / "zoo" / "recipes")
    sys.path.insert(0, recipes)
    names = runpy.run_path(recipes, run_name="names")["RECIPES"]
    return [*found, *([recipes, *rest] for rest in (["--help"], *([n, "--help"] for n in names)))]


def call(arguments: list[str]) -> str | None:
    """What is wrong with one call, which ends the process that it is made in."""
    sys.argv = arguments
    sys.path.insert(0, str(Path(arguments[0]).parent))
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        return None if not end.code else str(end.code)
    except ModuleNotFoundError as error:  # of another project: an extra that isn't installed
        name = str(error.name).partition(".")[0]
        ours = name.startswith(("feedback_adapter", "fa_")) or any(ROOT.rglob(f"{name}.py"))
        return traceback.format_exc() if ours else None
    except BaseException:
        return traceback.format_exc()
    return None


def main() -> None:
    """Make every call in a child of its own of a process that has imported what is slow."""
    for name in SLOW:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    wrong: dict[str, str] = {}
    for arguments in calls():
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.write(writer, (call(arguments) or "")[-2000:].encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            said = pipe.read().decode(errors="replace")
        if os.waitpid(child, 0)[1] or said:
            wrong[" ".join(arguments).replace(f"{ROOT}/", "")] = said or "It died."
    json.dump(wrong, sys.stdout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, to import torch once only")
def test_every_benchmark_and_recipe_says_how_it_is_called():
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, cwd=ROOT, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == {}


if __name__ == "__main__":
    main()
