"""What the page says, section by section, made of the evidence. The template only lays it out."""

import json
from collections.abc import Mapping
from typing import Any

from retinue import artifacts
from retinue.reports import data_tables, plots, tables
from retinue.reports.architecture import architecture
from retinue.reports.embedding import picture
from retinue.reports.evidence import Evidence
from retinue.reports.gallery import explanations
from retinue.reports.transfer import transfer
from retinue.reports.verdict import verdict


def content(sections: Mapping[str, Any], fingerprint: str, evidence: Evidence) -> dict[str, Any]:
    """The variables of the template.

    Args:
        sections: name -> section of the settings, as plain containers.
        fingerprint: of the settings.
        evidence: the artifacts.
    """
    return {
        "title": sections["report"]["title"],
        "run": {
            "dataset": evidence.dataset.name,
            "model": sections["model"]["name"],
            "transfer": sections["transfer"]["name"],
            "seed": sections["seed"],
            "fingerprint": fingerprint,
        },
        "verdict": verdict(evidence, sections["evaluate"]["confidence_level"]),
        "results": _results(sections, evidence),
        "explanations": explanations(evidence, columns=sections["report"]["gallery_columns"]),
        "training": _training(evidence),
        "network": architecture(evidence.architecture, evidence.bundle["training"]["initial_weights"]),
        "transfer": transfer(evidence.transfer, sections["transfer"]["name"]),
        "data": _data(evidence),
        "quarantine": data_tables.quarantined(evidence.quarantine) if evidence.quarantine else None,
        "augmentation": _augmentation(sections["augment"], evidence.policy),
        "settings": _settings(sections, evidence),
    }


def _results(sections: Mapping[str, Any], evidence: Evidence) -> dict[str, Any]:
    metrics, classes = evidence.metrics, evidence.dataset.classes
    return {
        "metrics": tables.overall_metrics(metrics, sections["evaluate"]["confidence_level"]),
        "charts": [
            *plots.roc_charts(evidence.roc, metrics),
            plots.precision_recall_chart(evidence.precision_recall, metrics),
            plots.calibration_chart(evidence.calibration, metrics),
        ],
        "by_class": tables.class_metrics(metrics["per_class"], classes),
        "operating_point": metrics.get("operating_point"),
        "positive": classes[1],
        "confusion": tables.confusion(classes, evidence.confusion),
        "num_classes": len(classes),
        "confusions": tables.top_confusions(classes, evidence.confusion),
    }


def _training(evidence: Evidence) -> dict[str, Any]:
    training, count = evidence.bundle["training"], len(evidence.history)
    best = training["best_epoch"]
    sentence = (
        f"{count} {'epoch' if count == 1 else 'epochs'}; the weights of epoch {best + 1} are kept, the best by "
        f"{training['monitor']} ({tables.figure(training['value'])})."
    )
    return {"sentence": sentence, "charts": plots.training_charts(evidence.history, best)}


def _data(evidence: Evidence) -> dict[str, Any]:
    return {
        "description": evidence.card["description"],
        "facts": data_tables.data_card(evidence.card, evidence.dataset),
        "counts": data_tables.class_counts(evidence.dataset),
        "duplicates": data_tables.duplicates(evidence.card["duplicates"]) if evidence.card["duplicates"] else None,
    }


def _augmentation(augment: Mapping[str, Any], policy: Any) -> dict[str, Any]:
    transforms, copies = augment["transforms"], augment["copies_per_image"]
    if not transforms:
        return {"sentence": "No augmentation: the training images are used as they are.", "transforms": None}
    extra = f" Besides, {copies} augmented copies of every training image are kept on disk." if copies else ""
    return {
        "sentence": f"Policy {augment['name']}: every epoch draws every training image anew, by seed, epoch and image "
        f"alone.{extra} Validation and test images are never augmented.",
        "transforms": tables.policy_table(transforms),
        "frozen": tables.shortened(json.dumps(policy, indent=2, ensure_ascii=False)),
        "sheet": picture(artifacts.AUGMENTED / "preview.png"),
    }


def _settings(sections: Mapping[str, Any], evidence: Evidence) -> dict[str, Any]:
    return {
        "sections": [
            {
                "table": tables.settings_table(name, values),
                "choice": values.get("name", "") if isinstance(values, Mapping) else "",
                "rest": _one_line(values),
            }
            for name, values in sections.items()
        ],
        "hashes": tables.hashes(evidence.hashes),
    }


def _one_line(values: Any) -> str:
    """What a closed section shows besides its name."""
    if not isinstance(values, Mapping):
        return str(values)
    return ", ".join(f"{key} {value}" for key, value in tables.flattened(values) if key not in ("name", "_target_"))
