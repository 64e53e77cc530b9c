"""Measures of explainers: numbers by hand, and explainers that are known to be good, or blind."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from networks import Small
from retinue.explainers.explainer import Explained, Explainer
from retinue.explainers.gradcam import GradCAM
from retinue.explainers.hirescam import HiResCAM
from retinue.explainers.layercam import LayerCAM
from retinue.explainers.measures.faithfulness import faithfulness, gaussian_blurred
from retinue.explainers.measures.measuring import measures_of_maps
from retinue.explainers.measures.randomisation import randomised_similarity, with_random_weights
from retinue.explainers.measures.references import REFERENCES, reference_map
from retinue.explainers.measures.similarity import rank_correlation
from retinue.explainers.measures.stability import shifted, stability
from retinue.explainers.measures.summary import bounded_mean, measures_document
from retinue.explainers.occlusion import Occlusion
from retinue.explainers.scores import explained_classes
from retinue.explainers.several import maps_of
from retinue.pipeline.artifacts import MeasuredMap

NAN = float("nan")


class SumOfPx(nn.Module):
    """Two logits: 0, and the sum of the px in the upper half."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        total = images[:, 0, :2].sum(dim=(1, 2))
        return torch.stack([torch.zeros_like(total), total], dim=1)


@dataclass(frozen=True)
class Edges(Explainer):
    """Sees the image alone: a control that no network can change."""

    label: ClassVar[str] = "Edges"

    def maps(self, network: nn.Module, images: torch.Tensor, classes: torch.Tensor | int | None = None) -> Explained:
        logits = network(images).detach()
        return Explained(images.abs().amax(dim=1), logits, explained_classes(logits, classes, self.label))


def test_deletion_and_insertion_by_hand() -> None:
    """A perfect map of an image of ones: the probability is σ of the px left, 8 of 16 of which count."""
    images, targets = torch.ones(1, 1, 4, 4), torch.tensor([1])
    heat = torch.zeros(1, 4, 4)
    heat[:, :2] = 1.0
    found = faithfulness(SumOfPx(), images, targets, heat, steps=4)
    curve = [1 / (1 + np.exp(-left)) for left in (8, 4, 0, 0, 0)]
    assert float(found.deletion) == pytest.approx(np.trapezoid(curve, dx=0.25), abs=1e-6)
    # A blur leaves an image of ones as it is: all probabilities are those of the whole image.
    assert float(found.insertion) == pytest.approx(curve[0], abs=1e-6)
    worst = faithfulness(SumOfPx(), images, targets, 1 - heat, steps=4)
    assert float(worst.deletion) == pytest.approx(np.trapezoid([curve[0]] * 3 + [curve[1], 0.5], dx=0.25), abs=1e-6)


def test_a_map_that_is_the_same_everywhere_gets_a_random_order() -> None:
    images, targets = torch.rand(2, 1, 8, 8), torch.tensor([1, 1])
    level = faithfulness(SumOfPx(), images, targets, torch.ones(2, 8, 8))
    empty = faithfulness(SumOfPx(), images, targets, torch.zeros(2, 8, 8))
    assert torch.equal(level.deletion, empty.deletion)
    best = faithfulness(SumOfPx(), images, targets, images[:, 0] * (torch.arange(8) < 2)[:, None])
    assert (best.deletion < level.deletion).all()


def test_a_blur_is_a_weighted_mean() -> None:
    images = torch.zeros(1, 2, 21, 21)
    images[:, :, 10, 10] = 1.0
    found = gaussian_blurred(images, 2.0)
    torch.testing.assert_close(found.sum(dim=(2, 3)), torch.ones(1, 2), atol=1e-3, rtol=0)
    assert float(found[0, 0, 10, 12] / found[0, 0, 10, 10]) == pytest.approx(np.exp(-0.5), abs=1e-5)


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, (6, 7)).astype(float), rng.integers(0, 5, (6, 7)).astype(float)
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first.ravel(), second.ravel()).statistic)
    assert rank_correlation(first, np.zeros((6, 7))) == rank_correlation(first, np.full((6, 7), np.nan)) == 0.0


def test_an_image_that_moves_continues_its_edge() -> None:
    images = torch.arange(12.0).reshape(1, 1, 3, 4)
    assert shifted(images, 0, 1)[0, 0, 0].tolist() == [0, 0, 1, 2]
    assert shifted(images, -1, 0)[0, 0, :, 0].tolist() == [4, 8, 8]


def test_a_map_of_the_px_moves_with_the_image_and_knows_no_weights() -> None:
    torch.manual_seed(0)
    network, images, targets = Small().eval(), torch.randn(2, 3, 16, 16), torch.tensor([1, 2])
    maps = Edges().maps(network, images, targets).maps
    np.testing.assert_allclose(stability(Edges(), network, images, targets, maps), 1.0)
    np.testing.assert_allclose(randomised_similarity(Edges(), network, images, targets, maps), 1.0)
    noise = torch.rand(2, 16, 16)
    assert abs(stability(Edges(), network, images, targets, noise)).max() < 0.3


def test_random_weights_come_from_the_head_down_and_keep_their_size() -> None:
    torch.manual_seed(0)
    network = Small()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    last = with_random_weights(network, 0.25).state_dict()  # 1 of 4 layers: the head
    changed = {name for name in before if not torch.equal(before[name], last[name])}
    assert changed == {"classifier.1.weight", "classifier.1.bias"}
    every = with_random_weights(network, 1.0)
    assert not torch.equal(every.features[0].weight, network.features[0].weight)
    with torch.no_grad():
        assert float(every.features[4].weight.std()) == pytest.approx(float(network.features[4].weight.std()), rel=0.2)
    again = with_random_weights(network, 1.0).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in every.state_dict().items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_maps_of_one_layer_share_a_forward_pass() -> None:
    torch.manual_seed(0)
    network, images = Small().eval(), torch.randn(2, 3, 16, 16)
    explainers = [each.located(network, images) for each in (GradCAM(), HiResCAM(), LayerCAM(score="probability"))]
    passes: list[int] = []
    network.register_forward_hook(lambda *_: passes.append(1))
    shared = maps_of(explainers, network, images)
    assert len(passes) == 1
    for explainer, explained in zip(explainers, shared, strict=True):
        assert torch.equal(explained.maps, explainer.maps(network, images).maps)
    assert len(passes) == 4
    maps_of([*explainers, Occlusion()], network, images)
    assert len(passes) == 4 + 1 + 50


@pytest.mark.parametrize("name", REFERENCES)
def test_reference_maps(name: str) -> None:
    heat = reference_map(name, (20, 30), 3)
    assert (heat.shape, heat.dtype) == ((20, 30), np.float32)
    assert 0 <= heat.min() <= heat.max() <= 1
    assert np.array_equal(heat, reference_map(name, (20, 30), 3))
    assert np.array_equal(heat, reference_map(name, (20, 30), 4)) == (name != "random")
    middle = heat[9:11, 14:16].mean()
    assert (middle > heat.mean() + 0.1) == (name == "centre")


def test_all_measures_of_a_batch() -> None:
    torch.manual_seed(0)
    network, images, targets = Small().train(), torch.randn(2, 3, 16, 16), torch.tensor([1, 2])
    masks = np.zeros((2, 16, 16), bool)
    masks[0, :4] = True
    explainers = {"gradcam": GradCAM().located(network, images[:1]), "edges": Edges()}
    found = measures_of_maps(explainers, network, images, targets, masks, [5, 6])
    rows = [MeasuredMap("x", n, **row) for n, of_image in enumerate(found) for row in of_image]
    assert [row.explainer for row in rows] == ["gradcam", "edges", *REFERENCES] * 2
    for row in rows:
        assert np.isnan(row.energy_score) == (row.map == 1)  # whose mask is empty
        assert np.isnan(row.random_error) == (row.explainer in REFERENCES)
        assert row.passes == (0 if row.explainer in REFERENCES else 1)
    assert (rows[2].energy_score, rows[2].pointing_score) == (0.25, 0.25)
    assert network.training


def measured(image: str, explainer: str, deletion: float, energy: float = NAN, *, empty: int = 0) -> MeasuredMap:
    return MeasuredMap(image, 0, explainer, empty, 1.0, deletion, 0.5, energy, NAN, NAN, NAN, NAN, NAN, NAN)


def test_the_document_counts_a_patient_once_and_compares_image_by_image() -> None:
    rows = [
        *(measured("a", "gradcam", 0.1, 0.8), measured("a", "uniform", 0.3, 0.2)),
        *(measured("b", "gradcam", 0.3, empty=1), measured("b", "uniform", 0.3)),
        *(measured("c", "gradcam", 0.6, 0.4), measured("c", "uniform", 0.5, 0.2)),
    ]
    document = measures_document(rows, {"a": 0, "b": 0, "c": 1})
    assert (document["images"], document["units"]) == (3, 2)
    own = document["explainers"]["gradcam"]
    assert (own["images"], own["empty"], own["passes"]) == (3, 1, 1.0)
    assert own["deletion_error"]["mean"] == pytest.approx((0.2 + 0.6) / 2)
    assert own["deletion_error"]["against"]["uniform"]["mean"] == pytest.approx((-0.1 + 0.1) / 2)
    assert own["energy_score"]["mean"] == pytest.approx(0.6)
    assert "stability_score" not in own
    assert document["explainers"]["uniform"]["deletion_error"]["against"] == {}


def test_an_interval_of_equal_values_has_a_width_and_stays_within_its_bounds() -> None:
    found = bounded_mean([1.0, 1.0, 1.0], 0.0, 1.0)
    assert (found["units"], found["mean"], found["high"]) == (3, 1.0, 1.0)
    assert 0 < found["low"] < 0.9
    assert bounded_mean([0.5], -1.0, 1.0)["low"] == -1.0
