"""What is imported is what pyproject.toml requires, and requirements.lock pins it."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
OWN = {"retinue", "hydra_plugins", "benchmarks", "tests", "conftest"}
OWN |= {path.stem for folder in ("tools", "tests/support", "tests/parity") for path in (ROOT / folder).glob("*.py")}
NOT_IMPORTED = {
    "ruamel-yaml-clib": "DVC reads its files with it",
    "s3fs": "fsspec opens s3:// with it",
    "gcsfs": "fsspec opens gs:// with it",
    "pytest-xdist": "an option of pytest",
    "ruff": "a command",
    "mypy": "a command",
    "types-pyyaml": "read by mypy",
}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    return {normalised(Requirement(text).name) for text in requirements} - {"retinue"}


def imports(folder: str) -> Iterator[tuple[str, str]]:
    """Top-level names that files of `folder` import, functions included, each with the file."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            else:
                found = [str(node.module)] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            yield from ((name.split(".")[0], str(path.relative_to(ROOT))) for name in found)


@cache
def required_by(*folders: str) -> dict[str, str]:
    """Distributions that `folders` import, each with a file that does; what is not installed goes by its own name."""
    installed = packages_distributions()
    return {
        normalised(distribution): file
        for folder in folders
        for name, file in imports(folder)
        if name not in OWN and name not in sys.stdlib_module_names
        for distribution in installed.get(name, [name])
    }


DEPENDENCIES = names(PROJECT["dependencies"])
OPTIONAL = names([text for extra, texts in EXTRAS.items() if extra != "dev" for text in texts])


def test_the_package_imports_what_it_requires() -> None:
    missing = {name: file for name, file in required_by("src").items() if name not in DEPENDENCIES | OPTIONAL}
    assert missing == {}, f"imported and not in [project].dependencies of pyproject.toml: {missing}"


def test_tests_tools_and_benchmarks_import_what_is_required() -> None:
    declared = DEPENDENCIES | OPTIONAL | names(EXTRAS["dev"])
    missing = {name: file for name, file in required_by("tools", "benchmarks", "tests").items() if name not in declared}
    assert missing == {}, f"imported and not in the extra `dev` of pyproject.toml: {missing}"


def test_what_is_required_is_imported() -> None:
    src, others = required_by("src"), required_by("tools", "benchmarks", "tests")
    unused = DEPENDENCIES - src.keys() - NOT_IMPORTED.keys()
    assert unused == set(), "in [project].dependencies of pyproject.toml, and no file of src/ imports it"
    unused = (OPTIONAL | names(EXTRAS["dev"])) - src.keys() - others.keys() - NOT_IMPORTED.keys()
    assert unused == set(), "in an extra of pyproject.toml, and nothing imports it"
    assert not NOT_IMPORTED.keys() & (src.keys() | others.keys())


def test_the_lock_pins_a_version_that_each_requirement_admits() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text("utf-8").splitlines() if not line.startswith("#")]
    pinned = {normalised(name): Version(version) for name, version in (line.split("==") for line in lines)}
    for requirement in map(Requirement, [*PROJECT["dependencies"], *EXTRAS["slurm"], *EXTRAS["dev"]]):
        if requirement.name != "retinue":
            version = pinned.get(normalised(requirement.name))
            assert version is not None, f"{requirement}: not in requirements.lock; run `make lock`"
            assert version in requirement.specifier, f"{requirement}: requirements.lock has {version}; run `make lock`"
