"""A docstring is a sentence that stands alone: it does not continue the name it stands under."""

import ast
import re
from pathlib import Path

import pytest

from import_graph import SRC

CONTINUES = re.compile(r"(Of|From|By|Who|As|At|On|For)\b")
FILES = sorted((SRC / "retinue").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SRC / "retinue").as_posix())
def test_no_docstring_continues_a_name(path: Path) -> None:
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node) or ""
            if CONTINUES.match(text):
                found.append(f"line {getattr(node, 'lineno', 1)}: {text.splitlines()[0]}")
    assert not found, "\n".join(found)
