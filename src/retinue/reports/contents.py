"""What the page says, section by section, made of the inputs. The template only lays it out."""

import json
from collections.abc import Mapping
from typing import Any

from retinue.pipeline import artifacts
from retinue.pipeline.numbers import figure
from retinue.reports import (
    corrections,
    data_tables,
    doubtful_labels,
    leaks,
    near_copies,
    plots,
    slices,
    tables,
    unusual,
)
from retinue.reports.architecture import architecture
from retinue.reports.baselines import baselines_section
from retinue.reports.cells import confusion_cells
from retinue.reports.data_page import data_page
from retinue.reports.embedding import picture
from retinue.reports.explainers import explainers_section
from retinue.reports.gallery import explanations
from retinue.reports.inputs import ReportInputs
from retinue.reports.inside import inside_section
from retinue.reports.model_card import model_card
from retinue.reports.opening import opening_cards
from retinue.reports.operating_point import decision_section
from retinue.reports.seen import seen_section
from retinue.reports.transfer import transfer
from retinue.reports.verdict import verdict


def content(sections: Mapping[str, Any], fingerprint: str, inputs: ReportInputs) -> dict[str, Any]:
    """The variables of the template.

    Args:
        sections: name -> section of the settings, as plain containers.
        fingerprint: of the settings.
        inputs: the artifacts.
    """
    level, fewest = sections["evaluate"]["confidence_level"], sections["report"]["slice_images"]
    found = slices.slices_of_test(fewest, level)
    doubts = doubtful_labels.doubts_of_val(inputs.dataset.classes, inputs.decision)
    first = verdict(inputs, level)
    strange = unusual.unusual_of_test(min(inputs.fit.images, sections["calibrate"]["known_images"]))
    first["points"] += [
        *slices.slice_points(found, level),
        *doubtful_labels.doubt_points(doubts),
        *unusual.unusual_points(strange),
    ]
    return {
        "title": sections["report"]["title"],
        "run": {
            "dataset": inputs.dataset.name,
            "model": sections["model"]["name"],
            "transfer": sections["transfer"]["name"],
            "seed": sections["seed"],
            "fingerprint": fingerprint,
        },
        "verdict": first,
        "opening": opening_cards(inputs, first["points"]),
        "model_card": model_card(sections, fingerprint, inputs, found, first["points"]),
        "results": _results(sections, inputs),
        "slices": slices.slices_section(found, fewest, level),
        "unusual": unusual.unusual_section(strange, inputs.dataset),
        "doubtful": doubtful_labels.doubtful_section(doubts, doubtful_labels.pictures_of_val(doubts)),
        "baselines": baselines_section(inputs.against_baselines, inputs.methods),
        "explanations": explanations(inputs, columns=sections["report"]["gallery_columns"]),
        "explainers": explainers_section(inputs),
        "training": _training(inputs),
        "network": architecture(inputs.architecture, inputs.bundle["training"]["initial_weights"]),
        "inside": inside_section(),
        "transfer": transfer(inputs.transfer, sections["transfer"]["name"]),
        "data": _data(inputs),
        "leaks": leaks.leaks_section(inputs),
        "near_copies": near_copies.near_copies_section(inputs, sections["preprocess"]["near_copies"]),
        "data_page": data_page(inputs),
        "seen": seen_section(inputs),
        "corrections": corrections.corrections_table(inputs),
        "quarantine": data_tables.quarantined(inputs.quarantine) if inputs.quarantine else None,
        "augmentation": _augmentation(sections["augment"], inputs),
        "settings": _settings(sections, inputs),
    }


def _results(sections: Mapping[str, Any], inputs: ReportInputs) -> dict[str, Any]:
    metrics, classes, level = inputs.metrics, inputs.dataset.classes, sections["evaluate"]["confidence_level"]
    return {
        "metrics": tables.overall_metrics(metrics, level),
        "charts": [
            *plots.roc_charts(inputs.roc, metrics),
            plots.precision_recall_chart(inputs.precision_recall, metrics),
            plots.calibration_chart(inputs.calibration, metrics),
        ],
        "by_class": tables.class_metrics(metrics["per_class"], classes),
        "class_intervals": tables.class_intervals(metrics["per_class"], classes, level),
        "decision": decision_section(inputs, level),
        "confusion": tables.confusion(classes, inputs.confusion),
        "cells": confusion_cells(inputs),
        "num_classes": len(classes),
        "confusions": tables.top_confusions(classes, inputs.confusion),
    }


def _training(inputs: ReportInputs) -> dict[str, Any]:
    training, count = inputs.bundle["training"], inputs.history[-1].epoch
    best = training["best_epoch"]
    sentence = (
        f"{count} {'epoch' if count == 1 else 'epochs'}; the weights of epoch {best} are kept, the best by "
        f"{training['monitor']} ({figure(training['value'])})."
    )
    if "fitted_head" in training:
        sentence = f"{sentence} {training['fitted_head']}"
    return {"sentence": sentence, "charts": plots.training_charts(inputs.history, best)}


def _data(inputs: ReportInputs) -> dict[str, Any]:
    return {
        "description": inputs.card["description"],
        "facts": data_tables.data_card(inputs.card, inputs.levels, inputs.dataset, inputs.seen),
        "counts": data_tables.class_counts(inputs.dataset),
        "duplicates": data_tables.duplicates(inputs.card["duplicates"]) if inputs.card["duplicates"] else None,
    }


def _augmentation(augment: Mapping[str, Any], inputs: ReportInputs) -> dict[str, Any]:
    transforms, copies = augment["transforms"], augment["copies_per_image"]
    if not transforms:
        return {"sentence": "No augmentation: the training images are used as they are.", "transforms": None}
    extra = f" Besides, {copies} augmented copies of every training image are kept on disk." if copies else ""
    return {
        "sentence": f"Policy {augment['name']}: every epoch draws every training image anew, by seed, epoch and image "
        f"alone.{extra} Validation and test images are never augmented.",
        "transforms": tables.policy_table(transforms),
        "audit": tables.policy_audit(inputs.audit),
        "findings": inputs.audit.findings,
        "frozen": tables.shortened(json.dumps(inputs.policy, indent=2, ensure_ascii=False)),
        "sheet": picture(artifacts.PREVIEW),
    }


def _settings(sections: Mapping[str, Any], inputs: ReportInputs) -> dict[str, Any]:
    return {
        "sections": [
            {
                "table": tables.settings_table(name, values),
                "choice": values.get("name", "") if isinstance(values, Mapping) else "",
                "rest": _one_line(values),
            }
            for name, values in sections.items()
        ],
        "hashes": tables.hash_table(inputs.hashes),
    }


def _one_line(values: Any) -> str:
    """What a closed section shows besides its name."""
    if not isinstance(values, Mapping):
        return str(values)
    return ", ".join(f"{key} {value}" for key, value in tables.flattened(values) if key not in ("name", "_target_"))
