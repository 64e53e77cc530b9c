"""What every choice in conf/ must be: it composes, bears its own name, and names code that is there and takes it."""

import copy
import inspect
import re
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
import torch

from choices import CONF, GROUPS, MISSING, choices_of, document, overrides_of
from compositions import compose
from dependencies import target_file, targets
from import_graph import SRC, closure
from networks import Small
from retinue.explainers.explainer import FEATURES, NETWORK, Explainer, NotApplicable
from retinue.images.augmentation import Policy
from retinue.pipeline.settings import build, locate

SECTIONS = sorted(set(GROUPS) - {"experiment", "sweep"})
"""Groups of conf/ that are sections of the settings."""

ALL = [pytest.param(group, name, id=f"{group}={name}") for group in SECTIONS for name in choices_of(group)]
RECIPES = [pytest.param(g, name, id=f"{g}={name}") for g in ("experiment", "sweep") for name in choices_of(g)]
FAMILIES = {"source": "sources", "model": "models", "explain": "explainers"}
"""Sections whose choices have a file each: section -> folder of src/retinue/."""

WATCHED_ALONE = ("source", "model")
"""Those of them of which DVC watches the chosen file alone; explain may use several, and is quick to run again."""


def section_of(group: str, name: str) -> dict[str, Any]:
    return compose(overrides_of(group, name))[group]


@pytest.mark.parametrize(("group", "name"), ALL)
def test_a_choice_bears_the_name_of_its_file(group: str, name: str) -> None:
    text = (CONF / group / f"{name}.yaml").read_text("utf-8")
    settings = document(group, name)
    given = settings.get("name", name)
    is_recipe_of_data = group == "source" and "module" not in settings  # its name is any text
    assert given == name or is_recipe_of_data or f"{group}.name=" in text, (
        f"conf/{group}/{name}.yaml: name: {given}. Expected {name}, as the file is called, so that one name leads from "
        f"params.yaml to the report; or a comment that says how {group}.name= is set."
    )


@pytest.mark.parametrize(("group", "name"), ALL)
@pytest.mark.slow
def test_a_choice_names_code_that_is_there_and_takes_its_settings(group: str, name: str) -> None:
    where = f"conf/{group}/{name}.yaml"
    for node in nodes_with_target(section_of(group, name)):
        target = node["_target_"]
        if target.startswith("retinue."):
            file = target_file(target)
            assert file.is_file(), f"{where}: _target_ {target}: no file {file.relative_to(SRC.parent)}. Write it."
        part = locate(target, where=where)
        taken = {f.name for f in fields(part)} if is_dataclass(part) else inspect.signature(part).parameters.keys()
        unknown = node.keys() - taken - {"_target_", "name", "module", "imagenet"}
        assert not unknown or "kwargs" in taken or "options" in taken, f"{where}: {target} takes no {sorted(unknown)}."


def nodes_with_target(node: Any) -> list[dict[str, Any]]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    here = [node] if isinstance(node, dict) and "_target_" in node else []
    return here + [found for child in children for found in nodes_with_target(child)]


@pytest.mark.parametrize("group", WATCHED_ALONE)
def test_what_dvc_watches_is_the_file_that_is_built(group: str) -> None:
    for name in choices_of(group):
        module = document(group, name).get("module")
        assert module, f"conf/{group}/{name}.yaml: no `module`. DVC watches src/retinue/{FAMILIES[group]}/<module>.py."
        written = list(targets(document(group, name)))
        wanted = f"retinue.{FAMILIES[group]}.${{"
        assert any(target.startswith(wanted) and ".module}." in target for target in written), (
            f"conf/{group}/{name}.yaml: _target_ {written} does not say ${{.module}} for the file, so that one could "
            "change without the other."
        )


@pytest.mark.parametrize("group", [g for g in SECTIONS if len(choices_of(g)) > 1])
@pytest.mark.slow
def test_choices_without_a_target_have_the_same_keys(group: str) -> None:
    """For one dataclass reads them all."""
    names = [name for name in choices_of(group) if "_target_" not in section_of(group, name)]
    for name in names:
        first, keys = section_of(group, names[0]).keys(), section_of(group, name).keys()
        assert keys == first, f"conf/{group}/{name}.yaml against {names[0]}.yaml: {sorted(keys ^ first)} in one alone."


@pytest.mark.parametrize(("group", "name"), [p for p in RECIPES if p.values[1] != "default"])
def test_a_recipe_says_its_command_its_cost_and_what_to_expect(group: str, name: str) -> None:
    header = re.findall(r"^# ?(.*)", (CONF / group / f"{name}.yaml").read_text("utf-8"), re.MULTILINE)
    text = "\n".join(header)
    for word in (f"Command: .*{group}={name}", "Cost: ", "Expected: "):
        assert re.search(word, text), f"conf/{group}/{name}.yaml: its header does not say {word!r}."


@pytest.mark.parametrize("name", choices_of("experiment"))
def test_an_experiment_changes_the_settings_and_adds_no_key(name: str) -> None:
    experiment, default = compose([f"experiment={name}"]), compose()
    assert experiment.keys() == default.keys()
    assert experiment != default


@pytest.mark.parametrize("name", choices_of("optimizer"))
def test_an_optimizer_lowers_a_loss(name: str) -> None:
    section = section_of("optimizer", name)
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = build(section, [weight], where="optimizer")
    loss = (weight**2).sum()
    loss.backward()
    optimizer.step()
    assert (weight**2).sum() < loss


@pytest.mark.parametrize("name", choices_of("schedule"))
def test_a_schedule_scales_the_learning_rate_between_0_and_1(name: str) -> None:
    section = section_of("schedule", name)

    def rates(steps: int) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5, momentum=0.9)
        schedule = build(section, optimizer, steps, where="schedule")
        found = []
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"] / 0.5)
            optimizer.step()
            schedule.step()
        return found

    for steps in (1, 7, 100):
        assert all(0 <= rate <= 1 for rate in rates(steps))
        assert max(rates(steps)) > 0
        assert rates(steps) == rates(steps)


@pytest.mark.parametrize("name", choices_of("augment"))
def test_a_policy_draws_images_of_the_same_size_and_the_same_twice(name: str) -> None:
    section = section_of("augment", name)
    assert section["copies_per_image"] >= 0
    size = compose()["preprocess"]["image_size"]
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    policy, again = (Policy(section["transforms"], seed=0) for _ in range(2))
    policy.check(image)
    for epoch in range(5):
        drawn = policy(image, epoch, 3)
        assert (drawn.shape, drawn.dtype) == (image.shape, image.dtype)
        assert np.array_equal(drawn, again(image, epoch, 3))
    assert policy.is_empty == (section["transforms"] == [])


@pytest.mark.parametrize("name", choices_of("explain"))
def test_an_explainer_gives_a_map_an_image_or_says_why_not(name: str) -> None:
    explainer: Explainer = build(section_of("explain", name)["explainer"], where="explain.explainer")
    torch.manual_seed(0)
    network, images = Small().train(), torch.randn(3, 3, 12, 12)
    network.features[1].eval()
    before = {name: (module.training, len(module._forward_hooks)) for name, module in network.named_modules()}
    with torch.no_grad():
        logits = copy.deepcopy(network).eval()(images)
    try:
        explainer = explainer.located(network, images[:1])
    except NotApplicable as refusal:
        pytest.skip(str(refusal))
    for classes, expected in (
        (None, logits.argmax(dim=1)),
        (2, torch.full((3,), 2)),
        (torch.tensor([0, 3, 1]), torch.tensor([0, 3, 1])),
    ):
        explained = explainer.maps(network, images, classes)
        assert (explained.maps.shape, explained.maps.dtype) == ((3, 12, 12), torch.float32)
        assert 0 <= explained.maps.min() <= explained.maps.max() <= 1
        assert torch.equal(explained.targets, expected)
        assert torch.allclose(explained.logits, logits, atol=1e-5)
        assert torch.equal(explainer.maps(network, images, classes).maps, explained.maps)
    assert explainer.label
    assert explainer.depends_on in (NETWORK, FEATURES)
    assert not any(parameter.grad is not None for parameter in network.parameters())
    assert before == {name: (module.training, len(module._forward_hooks)) for name, module in network.named_modules()}


@pytest.mark.slow
def test_every_file_of_the_package_is_used() -> None:
    """By the command, by a stage, by Hydra's plugins, or because a choice of conf/ names it."""
    used = {file for path in (SRC / "hydra_plugins").rglob("*.py") for file in closure(path)}
    used |= closure(SRC / "retinue" / "__main__.py")
    used |= closure(SRC / "retinue" / "preflight.py")  # called by name: pipeline/checked.py says why
    used |= {file for stage in (SRC / "retinue" / "stages").glob("*.py") for file in closure(stage)}
    for parameter in ALL:
        for target in targets(section_of(*parameter.values)):
            used |= closure(target_file(target))
    for path in sorted((SRC / "retinue").rglob("*.py")):
        family = next((group for group, folder in FAMILIES.items() if path.parent.name == folder), None)
        write = f"Write conf/{family}/{path.stem}.yaml." if family else "Use or remove it."
        assert path in used or not closure(path) & {path}, (
            f"{path.relative_to(SRC.parent)}: nothing imports it and no choice of conf/ names it. {write}"
        )


def test_a_setting_without_default_is_given_by_its_choice_alone() -> None:
    """params.yaml as committed, and what `retinue compose` makes without overrides, lacks nothing."""
    assert MISSING not in str(compose())
