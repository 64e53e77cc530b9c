"""A model card as Markdown, for who reads it beside the weights, on a model hub or in a pull request."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from retinue.pipeline.artifacts import ModelCard
from retinue.pipeline.numbers import figure, interval, p_value, percent

MAX_CLASSES = 100
"""Classes whose figures are shown; the JSON has all."""

_NOT_STATED = "not stated"
_MARKUP = re.compile(r"([\\`*\[\]<>#|~&]|(?<!\w)_|_(?!\w)|^[-+=]|(?<=^\d)[.)])")
"""What CommonMark or GitHub gives a meaning within a line or at its start; a backslash before it takes that away."""


def markdown_card(card: ModelCard) -> str:
    """The card as Markdown. What it names is escaped, so that no class and no path is taken for markup."""
    found, metrics = card.quantitative_analyses, card.metrics
    blocks = [
        f"# Model card: {as_markdown(card.model_details['name'])}",
        *_titled("Model details", _facts(_detail_facts(card))),
        *_titled("Intended use", *_intended_use(card.intended_use)),
        *_titled("Factors", *_factors(card.factors)),
        *_titled(
            "Metrics",
            as_markdown(
                f"Intervals are {percent(metrics['confidence_level'])} intervals over {figure(metrics['units'])} "
                f"independent units of {figure(metrics['images'])} test images."
            ),
            _list(f"{name}: {meaning}" for name, meaning in metrics["meanings"].items()),
        ),
        *_titled(
            "Evaluation data", _facts(_data_facts(card.evaluation_data, {"test": card.evaluation_data["counts"]}))
        ),
        *_titled("Training data", _facts(_training_facts(card.training_data))),
        *_titled("Quantitative analyses", *_analyses(found)),
        *_titled("Ethical considerations", as_markdown(card.ethical_considerations or f"{_NOT_STATED.capitalize()}.")),
        *_titled("Caveats and recommendations", _list(card.caveats)),
    ]
    return "\n\n".join(blocks) + "\n"


def as_markdown(value: Any) -> str:
    r"""A value as one line of Markdown text.

    >>> print(as_markdown("- a|b\n<i>snake_case</i> _c_"))
    \- a\|b \<i\>snake_case\</i\> \_c\_
    """
    return _MARKUP.sub(r"\\\1", " ".join(str(value).split()))


def _titled(title: str, *blocks: str) -> list[str]:
    return [f"## {title}", *(block for block in blocks if block)]


def _list(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {as_markdown(sentence)}" for sentence in sentences)


def _markdown_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(head)
    lines = [names, ["---"] * len(names), *([as_markdown(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _facts(facts: Mapping[str, str]) -> str:
    return _markdown_table(["what", "value"], ([name, value or _NOT_STATED] for name, value in facts.items()))


def _first_of(names: Iterable[str]) -> str:
    """Names beside each other, as many as are shown."""
    every = list(names)
    return ", ".join(every[:MAX_CLASSES]) + (
        f" and {figure(len(every) - MAX_CLASSES)} more" * (len(every) > MAX_CLASSES)
    )


def _detail_facts(card: ModelCard) -> dict[str, str]:
    details = card.model_details
    initial, epochs = details["initial_weights"], details["epochs"]
    digest = f" (SHA-256 {initial['sha256']})" if "sha256" in initial else ""
    return {
        "network": f"{details['network']}, {figure(details['parameters'])} parameters",
        "input": details["input"],
        "classes": _first_of(details["classes"]),
        "initial weights": f"{initial['name']}{digest}",
        "transfer": details["transfer"],
        "training": f"{figure(epochs)} {'epoch' if epochs == 1 else 'epochs'}, the weights of epoch "
        f"{details['kept_epoch']} kept by {details['kept_by']}, seed {details['seed']}",
        "settings": f"fingerprint {card.fingerprint}",
        "weights": f"SHA-256 {card.weights_sha256}",
        "licence": details["licence"],
        "contact": details["contact"],
    }


def _intended_use(use: Mapping[str, str]) -> list[str]:
    return [
        as_markdown(f"Intended: {use['intended'] or f'{_NOT_STATED}.'}"),
        as_markdown(f"Out of scope: {use['out_of_scope'] or f'{_NOT_STATED}.'}"),
        as_markdown(use["decides"]),
    ]


def _factors(factors: Mapping[str, Any]) -> list[str]:
    if not factors["slices"]:
        return ["Nothing that is known of the test images makes slices large enough to be looked at."]
    rows = [
        [
            each["slice"],
            figure(each["images"]),
            figure(each["accuracy"]),
            interval(each["interval"]),
            figure(each["elsewhere"]),
            p_value(each["corrected_p"]),
        ]
        for each in factors["slices"]
    ]
    told = (
        f"{figure(factors['slices_in_all'])} slices of the test split, by {', '.join(factors['looked_at'])}; the worst:"
    )
    return [
        as_markdown(told),
        _markdown_table(["slice", "images", "accuracy", "interval", "elsewhere", "p, corrected"], rows),
    ]


def _data_facts(data: Mapping[str, Any], counts: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
    facts = {name: data[key] for name, key in (("source", "name"), ("description", "description"))}
    facts |= {"origin": data["origin"], "licence": data["licence"]}
    for split, of in counts.items():
        facts[f"{split} images"] = _first_of(f"{name} {figure(count)}" for name, count in of.items())
    return facts


def _training_facts(data: Mapping[str, Any]) -> dict[str, str]:
    return _data_facts(data, data["counts"]) | {
        "augmentation": data["augmentation"] or "none",
        "files that could not be used": figure(data["quarantined"]),
        "corrected labels": figure(data["corrections"]),
    }


def _analyses(found: Mapping[str, Any]) -> list[str]:
    intervals = found["intervals"]
    overall = [[name, figure(value), interval(intervals.get(name))] for name, value in found["metrics"].items()]
    classes = [
        [
            name,
            figure(of["support"]),
            figure(of["recall_score"]),
            interval(of["intervals"].get("recall_score")),
            figure(of["precision_score"]),
            interval(of["intervals"].get("precision_score")),
        ]
        for name, of in list(found["per_class"].items())[:MAX_CLASSES]
    ]
    explained = (
        f"Where the network looks is shown by {found['explainer']}, in the report." if found["explainer"] else ""
    )
    return [
        _markdown_table(["metric", "test split", "interval"], overall),
        _markdown_table(["class", "images", "recall", "interval", "precision", "interval"], classes),
        _list(found["baselines"]),
        as_markdown(explained),
    ]
