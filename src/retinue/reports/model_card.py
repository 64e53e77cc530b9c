"""The model card (Mitchell et al., "Model Cards for Model Reporting", 2019): what goes with a network wherever it goes.

Its nine sections are theirs, in their order. Figures are those of the page; what no figure tells (intended use,
licence, ethical considerations) is taken from the settings, and said to be missing where they leave it out.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from retinue.metrics import scalar
from retinue.metrics.against_baselines import verdict_sentences
from retinue.metrics.registry import SUFFIXES, metrics_of
from retinue.metrics.slices import ImageSlice
from retinue.pipeline.artifacts import MODEL_CARD_FORMAT, SPLITS, ModelCard
from retinue.pipeline.numbers import figure
from retinue.reports.inputs import ReportInputs
from retinue.reports.operating_point import point_sentence
from retinue.reports.seen import stored_as

MAX_SLICES = 10
"""The worst slices, as many as are told."""


def model_card(
    sections: Mapping[str, Any],
    fingerprint: str,
    inputs: ReportInputs,
    slices: Sequence[ImageSlice],
    points: Sequence[str],
) -> ModelCard:
    """The card of the network of `inputs`.

    Args:
        sections: name -> section of the settings, as plain containers.
        fingerprint: of the settings.
        inputs: the artifacts.
        slices: of the test split, the worst first.
        points: what calls for a second look, a sentence each.
    """
    report, training, metrics = sections["report"], inputs.bundle["training"], inputs.metrics
    initial = training["initial_weights"]
    return ModelCard(
        format=MODEL_CARD_FORMAT,
        fingerprint=fingerprint,
        weights_sha256=inputs.decision.weights_sha256,
        model_details={
            "name": f"{sections['model']['name']} on {inputs.dataset.name}",
            "network": inputs.architecture["network"],
            "parameters": inputs.architecture["parameters"],
            "classes": list(inputs.dataset.classes),
            "input": stored_as(inputs.dataset),
            "initial_weights": {key: initial[key] for key in ("name", "sha256") if initial.get(key)},
            "transfer": sections["transfer"]["name"],
            "epochs": inputs.history[-1].epoch,
            "kept_epoch": training["best_epoch"],
            "kept_by": training["monitor"],
            "seed": sections["seed"],
            "licence": report["licence"],
            "contact": report["contact"],
        },
        intended_use={
            "intended": report["intended_use"],
            "out_of_scope": report["out_of_scope"],
            "decides": point_sentence(inputs),
        },
        factors={
            "looked_at": sorted({each.by for each in slices}),
            "slices": [_slice(each) for each in slices[:MAX_SLICES]],
            "slices_in_all": len(slices),
        },
        metrics={
            "meanings": _meanings(metrics),
            "confidence_level": sections["evaluate"]["confidence_level"],
            "images": metrics["num_images"],
            "units": metrics["num_units"],
        },
        evaluation_data={**_told_of_data(inputs), "counts": inputs.dataset.counts["test"]},
        training_data={
            **_told_of_data(inputs),
            "counts": {split: inputs.dataset.counts[split] for split in SPLITS if split != "test"},
            "augmentation": sections["augment"]["name"] if sections["augment"]["transforms"] else "",
            "quarantined": len(inputs.quarantine),
            "corrections": len(inputs.card["corrections"]),
        },
        quantitative_analyses={
            "metrics": {name: metrics[name] for name in metrics if name.endswith(SUFFIXES)},
            "intervals": metrics["intervals"],
            "per_class": metrics["per_class"],
            "operating_point": metrics.get("operating_point"),
            "baselines": verdict_sentences(inputs.against_baselines) if inputs.against_baselines.baselines else [],
            "explainer": inputs.gallery["explainer"] if inputs.gallery["applicable"] else "",
        },
        ethical_considerations=report["considerations"],
        caveats=(*points, *_standing_caveats(inputs)),
    )


def _slice(found: ImageSlice) -> dict[str, Any]:
    return {
        "slice": f"{found.by}: {found.value}",
        "images": found.images,
        "accuracy": found.accuracy,
        "interval": list(found.interval),
        "elsewhere": found.expected,
        "corrected_p": found.corrected,
    }


def _meanings(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Name of each metric of one number -> the first line of its docstring."""
    definitions = metrics_of(scalar)
    names = [name for name in metrics if name.endswith(SUFFIXES) and name in definitions]
    return {name: (inspect.getdoc(definitions[name]) or "").split("\n")[0] for name in names}


def _told_of_data(inputs: ReportInputs) -> dict[str, Any]:
    card = inputs.card
    return {key: card[key] or "" for key in ("name", "description", "licence", "origin")}


def _standing_caveats(inputs: ReportInputs) -> list[str]:
    """What holds of every network of this kind."""
    return [
        f"An image of none of the {figure(len(inputs.dataset.classes))} classes is given one of them all the same; how "
        "unusual an image is stands beside each prediction.",
        "The figures hold for images that come as the test images came: of the same source, prepared in the same way.",
    ]
