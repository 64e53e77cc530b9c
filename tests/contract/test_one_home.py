"""What is said in one place is said nowhere else: how numbers are written, files named, functions called."""

import ast
import re
from collections.abc import Iterator

from import_graph import SRC

PACKAGE = SRC / "retinue"
NUMBERS = PACKAGE / "pipeline" / "numbers.py"

OWN_DIGITS = {
    "metrics/probabilities.py",  # errors of pure functions, which stand on numpy alone
    "models/pattern.py",  # errors of a network, which imports its base and the errors alone
    "sources/surfaces.py",  # the description of a source is a file of the stage, to the last digit
    "reports/charts.py",  # pixels
    "reports/data_tables.py",  # the width of a bar
    "training/prefix.py",
}
"""Files that write digits themselves, and why."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text("utf-8"))


def formats(tree: ast.AST) -> list[str]:
    """The format specifications that choose digits: `:.4f`, `:,`, `:g`."""
    specs = [node.format_spec for node in ast.walk(tree) if isinstance(node, ast.FormattedValue) and node.format_spec]
    return [text for spec in specs if re.search(r"[efgEFG%,]'?$", text := ast.unparse(spec))]


def test_numbers_are_written_by_one_module() -> None:
    found = {name for name, tree in modules() if formats(tree)} - {NUMBERS.relative_to(PACKAGE).as_posix()}
    assert found == OWN_DIGITS, "write numbers with pipeline/numbers.py"
    called = re.compile(r"\.(toFixed|toPrecision|toExponential|toLocaleString)\(")
    scripts = {path.name for path in PACKAGE.glob("*/*.js") if called.search(path.read_text("utf-8"))}
    assert scripts == {"numbers.js", "parallel.js", "roc.js"}, "the last two write pixels and opacity"
