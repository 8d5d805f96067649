"""Commands of plugins: entry points of the group feedback_adapter_commands."""

import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = '''
import typer


def greet(name: str) -> None:
    """Say hello."""
    typer.echo(f"hello {name}")
'''


@pytest.fixture
def program(tmp_path):
    """Run `feedback-adapter` with distributions on the path that add commands."""

    def distribution(name: str, **commands: str) -> None:
        folder = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{command} = {target}" for command, target in commands.items()]
        (folder / "entry_points.txt").write_text(
            "\n".join(["[feedback_adapter_commands]", *lines, ""])
        )

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        code = (
            f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import feedback_adapter.cli as c"
        )
        return subprocess.run(
            [sys.executable, "-c", f"{code}; c.main()", *words],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    (tmp_path / "greeting.py").write_text(PLUGIN)
    run.distribution = distribution
    return run


def test_a_command_is_listed_and_runs(program):
    program.distribution("fine", greet="greeting:greet")
    listed = program("--help")
    assert "Added by fine." in listed.stdout
    assert (program("greet", "you").stdout, program("greet", "you").returncode) == (
        "hello you\n",
        0,
    )
    said = program("greet", "-h").stdout
    assert "Say hello." in said
    assert "completion" not in said  # the program's own business, not the command's


def test_a_broken_command_breaks_nothing_else(program):
    program.distribution("broken", bad="no_such_module:run")
    assert program("zoo", "--help").returncode == 0
    assert "Added by broken." in program("--help").stdout
    failed = program("bad")
    assert failed.returncode == 2
    assert "'bad' of broken can't be loaded: ModuleNotFoundError" in failed.stderr


def test_two_of_one_name_are_an_error_and_no_one_replaces_the_librarys(program):
    program.distribution("first", greet="greeting:greet", sites="greeting:greet")
    program.distribution("second", greet="greeting:greet")
    failed = program("greet", "you")
    assert failed.returncode == 2
    assert "must come from one distribution" in failed.stderr
    assert "where a pivot can sit" in " ".join(program("sites", "--help").stdout.split())


def test_help_needs_no_torch():
    code = (
        "import sys, contextlib, io, feedback_adapter.cli as c\n"
        "sys.argv = ['feedback-adapter', '--help']\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    c.main()\n"
        "print(sorted({'torch', 'timm', 'numpy', 'matplotlib', 'fa_cnnf'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_exist_and_hide_no_module():
    import feedback_adapter as fa

    folder = Path(fa.__file__).parent
    modules = {path.stem for path in folder.iterdir()}
    assert len(fa.__all__) > 30
    for name in fa.__all__:
        assert getattr(fa, name) is not None
        assert name not in modules, f"import feedback_adapter.{name} would hide {name}"
