"""Commands of plugins: entry points of the group feedback_adapter_commands."""

import importlib.metadata

import typer

from feedback_adapter.cli import commands


class Point:
    dist = None

    def __init__(self, name, value):
        self.name, self.value = name, value

    def load(self):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def test_a_command_that_fails_to_load_is_named_and_left_out(monkeypatch, capsys):
    app = typer.Typer()

    @app.command()
    def sites() -> None: ...

    def fine() -> None: ...

    points = [Point("broken", ImportError("no such thing")), Point("fine", fine)]
    points.append(Point("sites", fine))
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    commands.add_to(app)
    assert [c.name or c.callback.__name__ for c in app.registered_commands] == ["sites", "fine"]
    said = capsys.readouterr().err
    assert "'broken'" in said
    assert "no such thing" in said
    assert "already is a command" in said
