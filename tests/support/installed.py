"""What is installed, and what of that a list of requirements brings."""

from importlib.metadata import distribution, packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
RUN_TIME = ROOT / "deploy" / "requirements.txt"


def names_in(path: Path) -> list[str]:
    """The distributions that a file of requirements names, without what they need."""
    lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    return [canonicalize_name(Requirement(line).name) for line in lines if line]


def brought_by(path: Path) -> set[str]:
    """The distributions that a file of requirements installs here: those it names, and all that these need."""
    found, wanted = set[str](), [*names_in(path)]
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        found.add(name)
        needed = map(Requirement, distribution(name).requires or ())
        wanted += [canonicalize_name(each.name) for each in needed if _is_needed(each)]
    return found


def _is_needed(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def modules_beside(path: Path) -> set[str]:
    """The modules of all other distributions that are installed; of none is one that `brought_by` has, too."""
    brought = {*brought_by(path), "retinue"}
    owners = {module: {canonicalize_name(name) for name in names} for module, names in packages_distributions().items()}
    return {module for module, names in owners.items() if not brought & names}
