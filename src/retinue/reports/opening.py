"""What a decision needs, first: a card a question, made of what the section that answers it says in a line."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from retinue.metrics.against_baselines import best_first, verdict_sentences
from retinue.pipeline.numbers import figure, interval, significant
from retinue.reports.inputs import ReportInputs
from retinue.reports.operating_point import point_sentence

_MOST_BASELINES = 3


class CardLine(NamedTuple):
    """A figure of a card.

    Attributes:
        name: what it is.
        value: as text.
        note: its interval or what else it rests on; "" is none.
    """

    name: str
    value: str
    note: str = ""


class OpeningCard(NamedTuple):
    """A question of whoever decides, and the answer.

    Attributes:
        title: the question in a word or two.
        section: id of the part of the page that says more.
        lines: figures.
        sentences: what they mean.
    """

    title: str
    section: str
    lines: Sequence[CardLine] = ()
    sentences: Sequence[str] = ()


def opening_cards(inputs: ReportInputs, doubts: Sequence[str]) -> list[OpeningCard]:
    """The cards below the headline figures.

    Args:
        inputs: the artifacts.
        doubts: what calls for a second look, a sentence each.
    """
    doubtful = OpeningCard(
        "What is doubtful", "data", sentences=doubts or ["Nothing that was looked at calls for doubt."]
    )
    return [decision_card(inputs), baselines_card(inputs), doubtful]


def decision_card(inputs: ReportInputs) -> OpeningCard:
    """Where the network decides and what that gives; of more than two classes, the classes that fare worst."""
    point: Mapping[str, Any] | None = inputs.metrics.get("operating_point")
    classes = inputs.dataset.classes
    if point is None:
        found, right = "of its images, the share found", "of the images so named, the share right"
        lines = [_lowest(inputs, "recall_score", found), _lowest(inputs, "precision_score", right)]
        return OpeningCard("Operating point", "decision", lines, [point_sentence(inputs)])
    ends = point.get("intervals", {})
    meanings = {
        "sensitivity": ("sensitivity_score", f"of all {classes[1]}, the share found"),
        "specificity": ("specificity_score", f"of all {classes[0]}, the share left alone"),
    }
    rates = [
        CardLine(name, figure(point[key]), f"{interval(ends[key])}; {meaning}" if ends.get(key) else meaning)
        for name, (key, meaning) in meanings.items()
    ]
    threshold = CardLine("threshold", significant(point["threshold"]), f"of the probability of {classes[1]}")
    return OpeningCard("Operating point", "decision", [threshold, *rates], [point_sentence(inputs)])


def _lowest(inputs: ReportInputs, metric: str, meaning: str) -> CardLine:
    """The class with the lowest value of a metric."""
    values = {name: found[metric] for name, found in inputs.metrics["per_class"].items()}
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return CardLine(f"lowest {metric.removesuffix('_score')}", figure(None))
    worst = min(known, key=lambda name: known[name])
    return CardLine(f"lowest {metric.removesuffix('_score')}", figure(known[worst]), f"{worst}: {meaning}")


def baselines_card(inputs: ReportInputs) -> OpeningCard:
    """What takes no network, and whether the network is better."""
    found = inputs.against_baselines
    if found.baselines:
        lines = [CardLine(each.title, figure(each.metrics["accuracy_score"]), "accuracy") for each in best_first(found)]
        return OpeningCard("Baselines", "baselines", lines[:_MOST_BASELINES], verdict_sentences(found))
    support = inputs.confusion.sum(axis=1)
    top = int(np.argmax(support))
    share = float(support[top] / support.sum())
    ends = inputs.metrics["intervals"].get("accuracy_score")
    if ends is not None and ends[0] > share:
        said = "The network is better than that, beyond chance."
    elif inputs.metrics["accuracy_score"] > share:
        said = "The network's accuracy is higher, which may be chance."
    else:
        said = "The network's accuracy is not higher."
    line = CardLine("majority", figure(share), f"accuracy of always answering {inputs.dataset.classes[top]}")
    return OpeningCard("Baselines", "results", [line], [said])
