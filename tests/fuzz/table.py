"""Every target by name."""

from tests.fuzz import experiments, images, listed, processes, results, settings, weights
from tests.fuzz.target import Target

_MODULES = (images, settings, listed, weights, results, experiments, processes)

TARGETS: dict[str, Target] = {target.name: target for module in _MODULES for target in module.TARGETS}


def shares(names: list[str], inputs: int) -> dict[str, int]:
    """So many inputs for each of the targets `names` that all have `inputs` together, and one at least."""
    whole = sum(TARGETS[name].share for name in names)
    numbers = {name: max(1, int(inputs * TARGETS[name].share / whole)) for name in names}
    largest = max(numbers, key=lambda name: numbers[name])
    numbers[largest] += max(0, inputs - sum(numbers.values()))
    return numbers
