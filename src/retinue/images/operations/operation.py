"""What an operation is: a function of an image, with what it takes and gives declared beside it.

Args of such a function are the image, uint8 (H, W, C), and settings, each `Annotated` with its `Range` and, unless it
has to be given, with a default. It returns uint8 (H, W) or (H, W, C'), is the same for the same pixels, and leaves the
image it is given as it was.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from retinue.pipeline.errors import Fault
from retinue.pipeline.ranges import Range, checked

GRAY, RGB, HSV, LAB = "gray", "rgb", "hsv", "lab"
"""What the channels of an image are."""

Image = np.ndarray
"""uint8 (H, W, C)."""

F = TypeVar("F", bound=Callable[..., np.ndarray])


@dataclass(frozen=True)
class Operation:
    """One operation of the chain.

    Attributes:
        function: computes it.
        takes: what the channels of the image may be.
        gives: what they are afterwards; "" leaves them what they were.
        moves: whether things are elsewhere afterwards, so that a mask does not lie on them any more.
        schema: dataclass of its arguments, with their ranges.
    """

    function: Callable[..., np.ndarray]
    takes: tuple[str, ...]
    gives: str
    moves: bool
    schema: type[Any]

    @property
    def name(self) -> str:
        """What settings call it."""
        return self.function.__name__

    @property
    def summary(self) -> str:
        """The first paragraph of its docstring, in one line."""
        return " ".join((inspect.getdoc(self.function) or "").split("\n\n")[0].split())

    def resolved(self, arguments: dict[str, Any], where: str) -> tuple[dict[str, Any], list[Fault]]:
        """All arguments, the given and the defaults, and what is wrong with the given ones.

        Args:
            arguments: by name.
            where: they are given; keys of the faults begin with it.
        """
        defaults = {each.name: each.default for each in fields(self.schema) if each.default is not MISSING}
        return checked(self.schema, {**defaults, **arguments}, where=where)


OPERATIONS: dict[str, Operation] = {}
"""All operations by name, as `chain.py` imports their files."""


def operation(
    *takes: str, gives: str = "", moves: bool = False, relations: Sequence[Callable[..., Fault | None]] = ()
) -> Callable[[F], F]:
    """Makes a function an operation; the arguments are attributes of `Operation`, `relations` those of `Checked`."""

    def register(function: F) -> F:
        parameters = [*inspect.signature(function).parameters.values()][1:]
        hints = get_type_hints(function, include_extras=True)
        arguments = [(each.name, *_declared(hints[each.name], each.default)) for each in parameters]
        arguments.sort(key=lambda argument: argument[2].default is not MISSING)  # as a dataclass wants them
        schema = make_dataclass(f"{function.__name__}_arguments", arguments, namespace={"RELATIONS": tuple(relations)})
        OPERATIONS[function.__name__] = Operation(function, takes, gives, moves, schema)
        return function

    return register


def _declared(hint: Any, default: Any) -> tuple[Any, Any]:
    """Type and field of an argument."""
    limits = next((each for each in get_args(hint)[1:] if isinstance(each, Range)), Range())
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return kind, field(default=MISSING if default is inspect.Parameter.empty else default, metadata={"range": limits})
