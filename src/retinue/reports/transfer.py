"""What was frozen, what was trained and how fast, and what the hashes of every epoch prove."""

from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any, NamedTuple

from retinue.pipeline.artifacts import FittedHead, LayerEntry, LedgerEpoch
from retinue.pipeline.numbers import MISSING, figure, percent, significant
from retinue.reports.architecture import MAX_LAYERS
from retinue.reports.charts import tag
from retinue.reports.tables import Column, Table

_SHOWN_DIGITS = 12


class Stretch(NamedTuple):
    """Epochs that follow each other, after all of which the frozen tensors had one hash.

    Attributes:
        first, last: epochs, from 1.
        frozen_tensors: how many they are.
        sha256: hash of their names and bits.
    """

    first: int
    last: int
    frozen_tensors: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"


def transfer(document: Mapping[str, Any], choice: str) -> dict[str, Any]:
    """The variables of the section.

    Args:
        document: models/transfer.json.
        choice: transfer.name of the settings, which is "auto" where the scenario was chosen by measurement.
    """
    layers = [LayerEntry(**row) for row in document["layers"]]
    epochs = [LedgerEpoch(**row) for row in document["epochs"]]
    name, rates = document["scenario"]["name"], _rates(layers)
    content = {
        "choice": choice,
        "reasons": document["reasons"],
        "proof": "",
        "stretches": None,
        "layers": None,
        "num_layers": len(layers),
    }
    if len(rates) == 1 and all(row.trained_from == 1 for row in layers):
        opening = "No transfer" if name == "scratch" else f"Scenario {name}"
        return {
            **content,
            "sentence": f"{opening}: every layer was trained, at one learning rate ({significant(rates[0])})."
            f"{_fitted_head(document)}",
        }
    sentences = (_frozen(document), _learning(document, rates), _cache(document["prefix_cache"]))
    stretches = _stretches(epochs)
    return {
        **content,
        "sentence": f"Scenario {name}: {' '.join(filter(None, sentences))}{_fitted_head(document)}",
        "proof": f"{_stayed(stretches)} {_moved(epochs[-1])}".strip(),
        "stretches": _stretch_table(stretches) if len(stretches) > 1 else None,
        "layers": _layer_table(layers),
    }


def _frozen(document: Mapping[str, Any]) -> str:
    frozen, every = document["frozen"], document["scenario"]["unfreeze_every"]
    if not frozen["layers"]:
        return "no layer is frozen, and training goes on from the initial weights."
    text = (
        f"{figure(frozen['layers'])} of {figure(frozen['layers_before_head'])} layers before the head are frozen "
        f"({percent(frozen['layers'] / frozen['layers_before_head'])}), up to {frozen['blocks'][-1]}"
    )
    if every is None:
        return f"{text}."
    period = "epoch" if every == 1 else f"{every} epochs"
    return f"at first {text}; after every {period} the last frozen block is trained, too."


def _rates(layers: Sequence[LayerEntry]) -> list[float]:
    """The learning rates of the last epoch, the head's first: the others are factors <= 1 of it."""
    return sorted({row.lr for row in layers if row.lr is not None}, reverse=True)


def _learning(document: Mapping[str, Any], rates: Sequence[float]) -> str:
    head, others = rates[0], rates[1:]
    text = f"Learning rate before the schedule: {significant(head)}"
    if not others:
        alone = document["scenario"]["frozen_fraction"] == 1
        return f"{text} for the head{', which alone is trained' if alone else ' and all that is trained'}."
    if len(others) == 1:
        return f"{text} for the head, {significant(others[0])} for the trained layers before it."
    return (
        f"{text} for the head, {significant(others[0])} down to {significant(others[-1])} for the trained "
        "layers before it."
    )


def _cache(cache: str | None) -> str:
    if cache is None:
        return ""
    if cache.startswith("off"):
        return f"What the frozen layers give was computed in every epoch: {cache.partition(': ')[2]}."
    return f"What the frozen layers give was computed once and kept as {cache}."


def _fitted_head(document: Mapping[str, Any]) -> str:
    """How the head was fitted before the first epoch, after a space; empty where it was not."""
    if "fitted_head" not in document:
        return ""
    head = FittedHead(**document["fitted_head"])
    return (
        " Before the first epoch the head was fitted to the training images by logistic regression, with an L2 penalty "
        f"of {significant(head.penalty)}: of {len(head.penalties)} the one with the lowest log loss on {head.held_out} "
        f"({figure(min(head.log_losses))})."
    )


def _stretches(epochs: Sequence[LedgerEpoch]) -> list[Stretch]:
    found = []
    for (count, digest), rows in groupby(epochs, key=lambda row: (row.frozen_tensors, row.frozen_sha256)):
        numbers = [row.epoch for row in rows]
        found.append(Stretch(numbers[0], numbers[-1], count, digest))
    return found


def _stayed(stretches: Sequence[Stretch]) -> str:
    """What the hashes prove, and no more.

    Unfreezing makes the set smaller, so a set of the same size, or a larger one, with another hash is no proof.
    """
    first = stretches[0]
    if not any(stretch.frozen_tensors for stretch in stretches):
        return ""
    if any(before.frozen_tensors <= after.frozen_tensors for before, after in pairwise(stretches)):
        return "The hash of the frozen tensors is another one in later epochs, and unfreezing does not explain it."
    if len(stretches) > 1:
        return "Unfreezing made the set of frozen tensors smaller; while a set was frozen, its hash stayed the same."
    tensors = f"the {figure(first.frozen_tensors)} frozen tensors"
    if first.first == first.last:
        return f"The hash of {tensors} was the same after the epoch as before it."
    return f"The hash of {tensors} was the same after each of the {figure(first.last - first.first + 1)} epochs."


def _moved(last: LedgerEpoch) -> str:
    if last.unmoved_parameters:
        return f"{figure(last.unmoved_parameters)} trained tensors have the bits they began with."
    return f"Each of the {figure(last.trained_parameters)} trained tensors has other bits than at the start."


def _stretch_table(stretches: Sequence[Stretch]) -> Table:
    columns = [Column("epochs"), Column("frozen tensors", kind="number"), Column("SHA-256 after each")]
    rows = [
        [
            str(stretch),
            figure(stretch.frozen_tensors),
            tag("code", stretch.sha256[:_SHOWN_DIGITS] + "…") if stretch.frozen_tensors else MISSING,
        ]
        for stretch in stretches
    ]
    return Table("Frozen tensors by epoch", columns, rows)


def _layer_table(layers: Sequence[LayerEntry]) -> Table:
    rows = [
        [
            row.layer or "(the network)",
            row.type,
            figure(row.parameters),
            _state(row),
            "yes" if row.in_optimizer else "no",
            row.batch_norm or "",
            significant(row.lr),
        ]
        for row in layers[:MAX_LAYERS]
    ]
    columns = [
        *(Column("layer"), Column("type"), Column("parameters", kind="number"), Column("state")),
        *(Column("in optimizer"), Column("batch norm"), Column("lr", kind="number")),
    ]
    return Table(
        "Freeze ledger: layers with parameters, in the last epoch", columns, rows, max(0, len(layers) - MAX_LAYERS)
    )


def _state(row: LayerEntry) -> str:
    if row.frozen or row.trained_from is None:
        return "frozen"
    return "trained" if row.trained_from == 1 else f"trained from epoch {row.trained_from}"
