"""Finds which files of the package a module imports, directly or through others, lazily or not."""

import ast
from functools import cache
from pathlib import Path

SRC = Path(__file__).resolve().parents[1] / "src"


@cache
def direct_imports(path: Path) -> frozenset[Path]:
    """The package's files that the file at `path` names in any import statement, functions included."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            found.update(_files(name))
    return frozenset(found)


@cache
def closure(path: Path) -> frozenset[Path]:
    """`path` and every file of the package it imports, transitively."""
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting.extend(direct_imports(current))
    return frozenset(p for p in seen if not is_empty(p))


def _files(dotted: str) -> list[Path]:
    parts = dotted.split(".")
    if parts[0] != "retinue":
        return []
    target = SRC.joinpath(*parts)
    module = target.with_suffix(".py")
    return [module] if module.is_file() else [target / "__init__.py"] if target.is_dir() else []


@cache
def is_empty(path: Path) -> bool:
    """Whether a file holds nothing but a docstring, as the packages' __init__.py do."""
    body = ast.parse(path.read_text("utf-8")).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)
