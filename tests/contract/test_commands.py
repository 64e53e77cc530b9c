"""What every command of `retinue` must have: a help text for all it takes, and a place in the documentation."""

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from retinue.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = {path: path.read_text("utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
COMMANDS = sorted(main.commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_documented(name: str) -> None:
    examples = ROOT / "docs" / "extending.md"
    pages = [path.name for path, text in PAGES.items() if f"retinue {name}" in text and path != examples]
    assert pages, f"`retinue {name}` is on no page of docs/. Say there what it is for."


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_it_does_and_takes(name: str) -> None:
    command = main.commands[name]
    assert command.help, f"src/retinue/cli.py: the function of `retinue {name}` has no docstring, which is its --help."
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help or parameter.default is not None, (
                f"src/retinue/cli.py: {parameter.opts[0]} of `retinue {name}` has no help."
            )
        else:
            assert str(parameter.human_readable_name).strip("[].").upper() in command.help, (
                f"src/retinue/cli.py: the help of `retinue {name}` does not say what {parameter.name.upper()} is."
            )


def test_the_list_of_commands_has_a_line_for_each_and_80_columns() -> None:
    shown = CliRunner().invoke(main, ["--help"], terminal_width=80).output
    assert max(map(len, shown.splitlines())) <= 80
    assert [title for title, names in main.sections.items() if names][:5] == ["Settings", "Run", "Look", "Use", "Team"]
    assert sorted(name for names in main.sections.values() for name in names) == COMMANDS
    for name in COMMANDS:
        (line,) = re.findall(rf"^  {name} +(.*)$", shown, re.MULTILINE)
        assert not line.endswith(("...", "…")), f"src/retinue/cli.py: give `retinue {name}` a short_help of 60 signs."


def test_every_page_is_in_the_table_of_contents() -> None:
    contents = PAGES[ROOT / "docs" / "README.md"]
    for path in PAGES:
        if path.parent.name == "docs" and path.name != "README.md":
            assert f"({path.name})" in contents, f"docs/README.md: has no row for {path.name}."
