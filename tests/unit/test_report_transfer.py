"""The report's section on transfer: it says what the ledger holds, and claims no more than the hashes prove."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report_artifacts import TRANSFERRED, Scene, settings_values, write_artifacts
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import LayerEntry, LedgerEpoch
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import Tracker
from retinue.reports import architecture
from retinue.reports.tables import Table
from retinue.reports.transfer import transfer
from retinue.stages import report

HASHES = ("a" * 64, "b" * 64, "c" * 64)
SCRATCH = {"name": "scratch", "frozen_fraction": 0.0, "lr_factor": 1.0, "block_decay": 1.0, "unfreeze_every": None}
SIMILAR = {**SCRATCH, "name": "large_similar", "frozen_fraction": 0.7, "lr_factor": 0.1}


def frozen(layer: str, *, kind: str = "Conv2d", batch_norm: str | None = None) -> LayerEntry:
    return LayerEntry(layer, kind, 1000, True, None, False, batch_norm, None)


def trained(layer: str, lr: float, *, start: int = 1, batch_norm: str | None = None) -> LayerEntry:
    return LayerEntry(layer, "BatchNorm2d" if batch_norm else "Linear", 10, False, start, True, batch_norm, lr)


LAYERS = (
    frozen("features.0"),
    frozen("features.1", kind="BatchNorm2d", batch_norm="eval"),
    trained("features.4", 0.0002, batch_norm="train"),
    trained("classifier", 0.002),
)


def epochs(*held: tuple[int, str], unmoved: int = 0) -> list[LedgerEpoch]:
    """A row for each (number of frozen tensors, their hash)."""
    return [LedgerEpoch(i, count, digest, 4, unmoved) for i, (count, digest) in enumerate(held, start=1)]


def section(
    layers: Sequence[LayerEntry] = LAYERS,
    rows: Sequence[LedgerEpoch] = (),
    *,
    scenario: dict[str, Any] = SIMILAR,
    cache: str | None = "float32",
    num_frozen: int = 2,
    reasons: Sequence[str] = (),
    choice: str = "large_similar",
) -> dict[str, Any]:
    document = {
        "scenario": scenario,
        "reasons": list(reasons),
        "measured": {},
        "frozen": {
            "blocks": ["features.0", "layer1"][:num_frozen],
            "layers": num_frozen,
            "layers_before_head": 3 if num_frozen else 0,
        },
        "prefix_cache": cache,
        "layers": [asdict(row) for row in layers],
        "epochs": [asdict(row) for row in rows or epochs((7, HASHES[0]), (7, HASHES[0]))],
    }
    return transfer(document, choice)


def by_layer(table: Table) -> dict[str, dict[str, str]]:
    names = [column.name for column in table.columns]
    return {row[0]: dict(zip(names, row, strict=True)) for row in table.rows}


def test_scratch_is_one_sentence() -> None:
    content = section([trained("c1", 0.002), trained("head", 0.002)], epochs((0, HASHES[0])), scenario=SCRATCH)
    assert content["sentence"] == "No transfer: every layer was trained, at one learning rate (0.002)."
    assert (content["layers"], content["stretches"], content["proof"], content["reasons"]) == (None, None, "", [])


def test_what_is_frozen_is_said() -> None:
    assert section()["sentence"] == (
        "Scenario large_similar: 2 of 3 layers before the head are frozen (66.7 %), up to layer1. "
        "Learning rate before the schedule: 0.002 for the head, 0.0002 for the trained layers before it. "
        "What the frozen layers give was computed once and kept as float32."
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"cache": "off: augmentation draws anew in every epoch"},
            "every epoch: augmentation draws anew in every epoch.",
        ),
        ({"scenario": {**SIMILAR, "unfreeze_every": 1}}, "; after every epoch the last frozen block is trained, too."),
        (
            {"scenario": {**SIMILAR, "unfreeze_every": 3}},
            "; after every 3 epochs the last frozen block is trained, too.",
        ),
        (
            {"layers": [*LAYERS, trained("x", 0.00005)]},
            "0.002 for the head, 0.0002 down to 5e-05 for the trained layers",
        ),
        (
            {"layers": [*LAYERS[:2], LAYERS[3]], "scenario": {**SIMILAR, "frozen_fraction": 1.0}},
            "0.002 for the head, which alone is trained.",
        ),
        ({"layers": [*LAYERS[:2], LAYERS[3]]}, "0.002 for the head and all that is trained."),
        (
            {"layers": LAYERS[2:], "num_frozen": 0, "cache": None, "rows": epochs((0, HASHES[0]))},
            "no layer is frozen, and training goes on from the initial weights. Learning rate",
        ),
    ],
)
def test_what_differs_is_said(changes: dict[str, Any], said: str) -> None:
    assert said in section(**changes)["sentence"]


def test_reasons_are_those_of_auto() -> None:
    content = section(reasons=["few", "Chosen: x."], choice="auto")
    assert (content["choice"], content["reasons"]) == ("auto", ["few", "Chosen: x."])


def test_the_table_is_the_ledger() -> None:
    table = by_layer(section([*LAYERS, trained("late", 0.0002, start=3)])["layers"])
    assert list(table) == ["features.0", "features.1", "features.4", "classifier", "late"]
    assert table["features.0"] == {
        "layer": "features.0",
        "type": "Conv2d",
        "parameters": "1,000",
        "state": "frozen",
        "in optimizer": "no",
        "batch norm": "",
        "lr": "–",
    }
    assert [table[name]["batch norm"] for name in ("features.1", "features.4")] == ["eval", "train"]
    assert [table[name]["state"] for name in ("classifier", "late")] == ["trained", "trained from epoch 3"]
    assert (table["classifier"]["in optimizer"], table["classifier"]["lr"]) == ("yes", "0.002")


def test_very_many_layers_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retinue.reports.transfer.MAX_LAYERS", 3)
    content = section([*LAYERS, trained("x", 0.002)])
    assert (len(content["layers"].rows), content["layers"].left_out, content["num_layers"]) == (3, 2, 5)
    assert architecture.MAX_LAYERS == 1000


def test_a_network_with_parameters_of_its_own_has_a_name() -> None:
    assert "(the network)" in by_layer(section([*LAYERS, trained("", 0.002)])["layers"])


def test_equal_hashes_are_proof() -> None:
    content = section(rows=epochs(*[(7, HASHES[0])] * 3))
    assert content["proof"] == (
        "The hash of the 7 frozen tensors was the same after each of the 3 epochs. "
        "Each of the 4 trained tensors has other bits than at the start."
    )
    assert content["stretches"] is None


def test_one_epoch_is_compared_with_its_start() -> None:
    assert section(rows=epochs((7, HASHES[0])))["proof"].startswith(
        "The hash of the 7 frozen tensors was the same after the epoch as before it."
    )


def test_sets_that_shrink_are_shown_one_by_one() -> None:
    content = section(rows=epochs((7, HASHES[0]), (7, HASHES[0]), (4, HASHES[1]), (0, HASHES[2])))
    assert content["proof"].startswith("Unfreezing made the set of frozen tensors smaller; while a set was frozen, its")
    assert content["stretches"].rows == [
        ["1 to 2", "7", "<code>aaaaaaaaaaaa…</code>"],
        ["3", "4", "<code>bbbbbbbbbbbb…</code>"],
        ["4", "0", "–"],
    ]


@pytest.mark.parametrize(
    "held",
    [
        [(7, HASHES[0]), (7, HASHES[1])],
        [(4, HASHES[0]), (7, HASHES[1])],
        [(7, HASHES[0]), (0, HASHES[2]), (7, HASHES[0])],
    ],
    ids=["another hash", "more tensors", "frozen again"],
)
def test_what_unfreezing_does_not_explain_is_no_proof(held: list[tuple[int, str]]) -> None:
    content = section(rows=epochs(*held))
    assert "is another one in later epochs, and unfreezing does not explain it." in content["proof"]
    assert "was the same" not in content["proof"]
    assert len(content["stretches"].rows) == len(held)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(HASHES)), min_size=2, max_size=8))
def test_the_same_is_claimed_of_equal_sets_only(held: list[tuple[int, str]]) -> None:
    claimed = "was the same after each" in section(rows=epochs(*held))["proof"]
    assert claimed == (len(set(held)) == 1 and held[0][0] > 0)


def test_a_tensor_that_did_not_move_is_counted() -> None:
    proof = section(rows=epochs((7, HASHES[0]), unmoved=2))["proof"]
    assert "2 trained tensors have the bits they began with." in proof
    assert "Each of" not in proof


def page(scene: Scene, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The section of the page, as HTML."""
    monkeypatch.chdir(folder)
    write_artifacts(scene)
    report.run(Settings(settings_values(scene), report.SECTIONS), Tracker(None))
    return artifacts.REPORT.read_text("utf-8").split('<section id="transfer">')[1].split("</section>")[0]


@pytest.mark.slow
def test_the_page_shows_scenario_reasons_proof_and_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    html = page(TRANSFERRED, tmp_path, monkeypatch)
    assert "2 of 4 layers before the head are frozen (50 %), up to features.c3." in html
    assert "<p>It was chosen by transfer=auto:</p>" in html
    assert [f"<li>{reason}</li>" in html for reason in TRANSFERRED.reasons] == [True, True]
    assert "The hash of the 4 frozen tensors was the same after each of the 18 epochs." in html
    assert "Freeze ledger of all 5 layers" in html
    assert html.count("<td>frozen</td>") == 2


@pytest.mark.slow
def test_the_page_of_scratch_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    html = page(Scene(per_class=5, epochs=2), tmp_path, monkeypatch)
    assert html.count("<p>") == 1
    assert "<table" not in html
