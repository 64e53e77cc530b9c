"""What is said in one place is said nowhere else: how numbers are written, files named, functions called."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path

import yaml

from import_graph import SRC
from retinue.metrics import per_class, scalar
from retinue.metrics.registry import higher_is_better, lower_is_better, metrics_of
from retinue.pipeline import artifacts

PACKAGE = SRC / "retinue"
NUMBERS = PACKAGE / "pipeline" / "numbers.py"

OWN_DIGITS = {
    "metrics/probabilities.py",  # errors of pure functions, which stand on numpy alone
    "models/pattern.py",  # errors of a network, which imports its base and the errors alone
    "sources/surfaces.py",  # the description of a source is a file of the stage, to the last digit
    "reports/charts.py",  # pixels
    "reports/data_tables.py",  # the width of a bar
}
"""Files that write digits themselves, and why."""


FILES = {path.name: name for name, path in vars(artifacts).items() if isinstance(path, Path) and path.suffix}
"""Name of a file of the pipeline -> the constant that says where it is."""

FOLDERS = {artifacts.OVERLAYS.name, artifacts.MASKS.name}


@cache
def modules() -> list[tuple[str, ast.Module]]:
    files = sorted(PACKAGE.rglob("*.py"))
    return [(path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text("utf-8"))) for path in files]


def formats(tree: ast.AST) -> list[str]:
    """The format specifications that choose digits: `:.4f`, `:,`, `:g`."""
    specs = [node.format_spec for node in ast.walk(tree) if isinstance(node, ast.FormattedValue) and node.format_spec]
    return [text for spec in specs if re.search(r"[efgEFG%,]'?$", text := ast.unparse(spec))]


def test_numbers_are_written_by_one_module() -> None:
    found = {name for name, tree in modules() if formats(tree)} - {NUMBERS.relative_to(PACKAGE).as_posix()}
    assert found == OWN_DIGITS, "write numbers with pipeline/numbers.py"
    called = re.compile(r"\.(toFixed|toPrecision|toExponential|toLocaleString)\(")
    scripts = {path.name for path in PACKAGE.glob("*/*.js") if called.search(path.read_text("utf-8"))}
    drawn = {"confusion.js", "learning.js", "parallel.js", "roc.js"}  # pixels, shades and opacity
    assert scripts == {"numbers.js", *drawn}


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and value of every string that is no docstring, parts of f-strings included."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def named_folders(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of every folder that is joined to a path by its name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
            yield node.lineno, str(node.right.value)


def test_files_of_the_pipeline_are_named_in_artifacts_alone() -> None:
    assert {"manifest.csv", "bundle.json", "maps.npy", "weights.safetensors", "roc.csv"} <= set(FILES)
    names = set(FILES) - {artifacts.REPORT.name}  # index.html is the name of any page
    pattern = re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, names))})(?![\w])")
    found = []
    for module, tree in modules():
        if module != "pipeline/artifacts.py":
            found += [f"{module}:{line}: {match[0]}" for line, text in texts(tree) for match in pattern.finditer(text)]
            found += [f"{module}:{line}: {name}" for line, name in named_folders(tree) if name in FOLDERS]
    assert not found, f"use the constants of pipeline/artifacts.py: {found}"


def test_dvc_and_artifacts_name_the_same_files() -> None:
    declared = {path.as_posix() for path in vars(artifacts).values() if isinstance(path, Path)}
    declared |= {(artifacts.PROCESSED / split).as_posix() for split in artifacts.SPLITS}
    pipeline = yaml.safe_load((SRC.parent / "dvc.yaml").read_text("utf-8"))
    outs = {
        next(iter(out)) if isinstance(out, dict) else out
        for stage in pipeline["stages"].values()
        for out in [*stage.get("outs", []), *stage.get("metrics", [])]
    }
    plots = {path: column for plot in pipeline["plots"] for each in plot.values() for path, column in each["y"].items()}
    folders = {artifacts.REPORT.parent.as_posix()}
    assert outs - folders <= declared
    for path, columns in plots.items():
        row_type = artifacts.ROW_TYPES[Path(path)]
        assert {columns} if isinstance(columns, str) else set(columns) <= {field.name for field in fields(row_type)}
        assert any(path == out or path.startswith(f"{out}/") for out in outs)


def test_every_table_says_what_its_rows_are() -> None:
    tables = {path for path in vars(artifacts).values() if isinstance(path, Path) and path.suffix == ".csv"}
    assert set(artifacts.ROW_TYPES) == tables


ENTRY_POINTS = {"run", "main"}
"""Every stage and command has a `run`, every process a `main`."""

IN_ONE_ROOM = {"_shown", "_trains"}
"""Of transfer/, where two files have one of each."""

FACES = {"cli.py"}
"""Its functions are the commands, each called as the one it starts."""


def defined(tree: ast.Module) -> set[str]:
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_a_name_means_one_thing() -> None:
    homes: dict[str, list[str]] = {}
    for module, tree in modules():
        for name in defined(tree) - ENTRY_POINTS if module not in FACES else ():
            homes.setdefault(name, []).append(module)
    shared = {name: found for name, found in homes.items() if len(found) > 1}
    # a metric of each class is called as that of all of them
    metrics = {name for name, found in shared.items() if found == ["metrics/per_class.py", "metrics/scalar.py"]}
    assert metrics <= set(metrics_of(scalar)) & set(metrics_of(per_class))
    assert set(shared) - IN_ONE_ROOM == metrics, "say in the name what each of them is"


def test_every_metric_is_better_one_way() -> None:
    names = {**metrics_of(scalar), **metrics_of(per_class)}
    assert names
    assert all(higher_is_better(name) is not lower_is_better(name) for name in names)
    ends = re.compile(r"_(score|error|loss)")
    asked = {
        module
        for module, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "endswith"
        if ends.search(ast.unparse(node))
    }
    assert asked == {"metrics/registry.py"}, "ask metrics/registry.py which values are better"
