"""Experiments that differ in one setting alone: those of several seeds, and the folds of a cross-validation."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

_NO_PART = "tracking."
_BEFORE_NUMBER = re.compile(r"[-_.](s|seed|f|fold)?\d*$")


def siblings(key: str, experiments: Iterable[tuple[str, Mapping[str, str]]]) -> list[dict[str, int]]:
    """The experiments that differ in `key` alone, and in the tracking; of one baseline, because code counts.

    Args:
        key: dotted name of the setting; experiments without it are passed over.
        experiments: of each the baseline and the settings, dotted key -> value as text.

    Returns:
        Of each set the values of `key` with the positions of the experiments, of several with one value the first; also
        sets of one.
    """
    groups: dict[tuple[object, ...], dict[str, int]] = defaultdict(dict)
    for i, (baseline, settings) in enumerate(experiments):
        if key in settings:
            same = {k: v for k, v in settings.items() if k != key and not k.startswith(_NO_PART)}
            groups[(baseline, *sorted(same.items()))].setdefault(settings[key], i)
    return list(groups.values())


def common_name(names: Sequence[str]) -> str:
    """What the names of experiments begin with, without a number.

    >>> common_name(["lenet-s0", "lenet-s1"]), common_name(["sweep-1a2b3c-0", "sweep-1a2b3c-1"])
    ('lenet', 'sweep-1a2b3c')
    >>> common_name(["a", "b"])
    'a …'
    """
    alike = takewhile(lambda signs: len(set(signs)) == 1, zip(*names, strict=False))
    return _BEFORE_NUMBER.sub("", "".join(signs[0] for signs in alike)) or f"{names[0]} …"
