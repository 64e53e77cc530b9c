"""Which settings differ between experiments."""

from collections.abc import Mapping, Sequence

_SAME_AS_NAME = ("_target_", "module", "imagenet")
_NO_PART = ("tracking.", "report.")
_MAX_LENGTH = 40


def differing(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """The dotted keys whose value is not the same in all of `settings`, in their order; none at all is a value, too."""
    keys = dict.fromkeys(key for values in settings for key in values)
    return [key for key in keys if len({values.get(key) for values in settings}) > 1]


def columns(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """The differing keys that make a column: those that shape a result, say something new, and are short.

    What is left out is still in the comparison of two experiments: `model._target_` says what `model.name` says,
    `optimizer.momentum` comes and goes with `optimizer.name`, and the transforms of a policy fill a line.
    """
    return [
        key
        for key in differing(settings)
        if not key.startswith(_NO_PART)
        and key.rpartition(".")[2] not in _SAME_AS_NAME
        and all(_is_short(values[key]) for values in settings if key in values)
        and not _follows(key, settings)
    ]


def _is_short(value: str) -> bool:
    return not value.startswith("[") or (len(value) <= _MAX_LENGTH and "{" not in value)


def _follows(key: str, settings: Sequence[Mapping[str, str]]) -> bool:
    """Whether only some choices of its section have the key, and each always with one value."""
    choice = f"{key.partition('.')[0]}.name"
    if key == choice or all(key in values for values in settings):
        return False
    values = {(of.get(choice), of.get(key)) for of in settings}
    return len(values) == len({name for name, _ in values})
