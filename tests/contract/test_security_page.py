"""Behind each line of docs/security.md stands a test that exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/security.md").read_text("utf-8")
NAMED = re.findall(r"`((?:unit|property|contract|integration)/\w+\.py)(?:::(\w+))?`", PAGE)


def test_every_line_of_what_is_not_trusted_names_a_test() -> None:
    _, _, table = PAGE.partition("## Not trusted")
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 10
    assert [row for row in rows if ".py" not in row.split("|")[-2]] == []


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_the_tests_that_are_named_exist(file: str, name: str) -> None:
    path = ROOT / "tests" / file
    assert path.is_file()
    functions = {
        node.name for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)
    }
    assert not name or name in functions
