"""transfer=auto: a scenario chosen by the size of the training split and how far the weights already serve it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from retinue.pipeline.errors import Fault
from retinue.pipeline.numbers import figure, percent
from retinue.pipeline.ranges import Checked, allowed, shown
from retinue.pipeline.settings import build
from retinue.transfer.scenario import Scenario
from retinue.transfer.similarity import Similarity

SCENARIOS = ("scratch", "small_similar", "large_similar", "small_different", "large_different")


class Decision(NamedTuple):
    """The scenario that is trained, and why.

    Attributes:
        scenario: one of conf/transfer.
        reasons: sentences; empty where a person chose.
        measured: what was looked at, for the record; empty where a person chose.
    """

    scenario: Scenario
    reasons: tuple[str, ...] = ()
    measured: Mapping[str, Any] = {}


def _every_scenario_is_there(candidates: dict[str, Any]) -> Fault | None:
    if sorted(candidates) == sorted(SCENARIOS):
        return None
    return Fault("candidates", ", ".join(candidates) or "none", ", ".join(SCENARIOS))


def _useful_is_below_similar(similar_from: float, useful_from: float) -> Fault | None:
    if useful_from < similar_from:
        return None
    return Fault("useful_from", shown(useful_from), f"less than transfer.similar_from ({similar_from})")


@dataclass(frozen=True)
class Auto(Checked, section="transfer"):
    """conf/transfer/auto.yaml: the table of scenarios (size of the data by similarity), applied to measured values.

    Only the training split is looked at.

    Attributes:
        name: of the choice.
        candidates: the scenarios of conf/transfer by name, all of SCENARIOS.
        small_below: mean number of training images per class; data with fewer are small.
        similar_from: similarity (`retinue.transfer.similarity`) from which data are similar.
        useful_from: similarity below which large data are trained from scratch, < similar_from: with images enough,
            features of a foreign domain are a worse start than none.
        probe_images: at most so many images are looked at.
        probe_folds: of the cross-validation.
    """

    RELATIONS = (_every_scenario_is_there, _useful_is_below_similar)

    name: str
    candidates: dict[str, Any]
    small_below: int = field(metadata=allowed(ge=1, most=1_000_000_000))
    similar_from: float = field(metadata=allowed(gt=0, lt=1))
    useful_from: float = field(metadata=allowed(lt=1))
    probe_images: int = field(metadata=allowed(ge=1, most=1_000_000))
    probe_folds: int = field(metadata=allowed(ge=2, most=1000))

    @property
    def transfers(self) -> bool:
        """It makes sense with initial weights only."""
        return True

    def scenario(self, name: str) -> Scenario:
        """One of the candidates."""
        return build(self.candidates[name], where=f"transfer.candidates.{name}")

    def decide(self, images_per_class: float, measure: Callable[[int, int], Similarity]) -> Decision:
        """The scenario for data of this size and similarity.

        Args:
            images_per_class: mean number of training images per class.
            measure: takes the number of images to look at and the number of folds.
        """
        found = measure(self.probe_images, self.probe_folds)
        small, similar = images_per_class < self.small_below, found.value >= self.similar_from
        name = f"{'small' if small else 'large'}_{'similar' if similar else 'different'}"
        reasons = [
            f"{figure(round(images_per_class))} training images per class: {'few' if small else 'many'} "
            f"(transfer.small_below {self.small_below}).",
            f"A linear probe on the features of the initial weights reaches {figure(found.transferred)} balanced "
            f"accuracy in cross-validation on {found.num_images} training images, on those of an untrained network "
            f"{figure(found.untrained)}: the weights save {percent(found.value)} of the errors, so the data are "
            f"{'similar to' if similar else 'different from'} their source "
            f"(transfer.similar_from {self.similar_from}).",
        ]
        if found.value < self.useful_from and not small:
            name = "scratch"
            reasons.append(f"They are of no use to many images (transfer.useful_from {self.useful_from}).")
        return Decision(
            self.scenario(name),
            (*reasons, f"Chosen: {name}."),
            {"images_per_class": images_per_class, **asdict(found), "similarity": found.value},
        )
