"""What a person should know of a source and what was found in it, said on the console."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from retinue.pipeline import artifacts
from retinue.pipeline.names import class_order, look_alikes
from retinue.pipeline.numbers import figure
from retinue.pipeline.ranges import shown
from retinue.sources.corrections import Corrected
from retinue.sources.masks import likely_masks
from retinue.sources.source import SourceRecord


def warn_of_look_alikes(source: str, labels: Iterable[str]) -> None:
    """Warns of class names that look the same; `source` is the name of theirs."""
    for alike in look_alikes(labels):
        print(
            f"warning: source {source}: {', '.join(map(shown, alike))} are {figure(len(alike))} classes, whose names "
            "differ in case, spaces or the writing of a letter alone. If they are one, give them one name.",
            file=sys.stderr,
            flush=True,
        )


def say_what_was_found(source: str, described: Mapping[str, Any], correction: Corrected) -> None:
    """Says what a person should know about the files and which labels were corrected.

    Args:
        source: its name.
        described: the dataset card.
        correction: the records of the source, as corrected.
    """
    for notice in notices(described, correction.records):
        print(f"source {source}: {notice}", file=sys.stderr, flush=True)
    if correction.changes or correction.passed_over:
        other = f"; {figure(correction.passed_over)} line(s) are for other sources" if correction.passed_over else ""
        print(f"{artifacts.CORRECTIONS}: {figure(len(correction.changes))} image(s) corrected{other}")
    if emptied := class_order({each["was"] for each in correction.changes} - {r.label for r in correction.records}):
        print(
            f"warning: {artifacts.CORRECTIONS} leaves no image of {', '.join(map(shown, emptied))}: no class of the "
            "network is called so.",
            file=sys.stderr,
            flush=True,
        )


def notices(card: Mapping[str, Any], records: Sequence[SourceRecord]) -> Iterator[str]:
    """What a person should know about the files, a sentence each.

    Args:
        card: the dataset card.
        records: of the source.
    """
    if (stray := card["strays"])["number"]:
        yield (
            f"{figure(stray['number'])} file(s) that are no images are passed over ({stray['endings']}), "
            f"such as {shown(stray['first'][0])}"
        )
    if (wrong := card["wrong_endings"])["number"]:
        kinds = ", ".join(f"{kind}: {figure(count)}" for kind, count in wrong["kinds"].items())
        yield (
            f"{figure(wrong['number'])} file(s) are of another format than their ending says ({kinds}), such as "
            f"{shown(wrong['first'][0])}; that is no harm, the contents count"
        )
    template = likely_masks(record.image_id for record in records if not record.is_stray)
    if template is not None:
        yield (
            "many files come in pairs, of which one may be the mask of the other. If so, say it, or the masks are "
            f"taken for images: source.masks={shown(template)}"
        )
