"""dvc.yaml declares exactly the code, the settings and the files each stage reads; params.yaml is conf/ composed."""

import ast
import graphlib
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from compositions import compose
from dependencies import BUILDS_MODELS, SHOWS_SETTINGS, rewritten, stage_file, target_file, targets
from import_graph import SRC, closure, is_empty
from retinue.pipeline.composition import load_params
from retinue.pipeline.errors import SettingsError
from retinue.pipeline.settings import Settings
from retinue.stages import __path__ as stages_path

ROOT = SRC.parent
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))
STAGES = sorted(path.stem for path in Path(stages_path[0]).glob("[a-z]*.py"))


def resolved(text: str, params: dict[str, Any]) -> str:
    """`text` with DVC's ${section.key} replaced from `params`."""

    def value(match: re.Match[str]) -> str:
        node: Any = params
        for key in match[1].split("."):
            node = node[key]
        return str(node)

    return re.sub(r"\$\{([\w.]+)\}", value, text)


def imported_code(stage: str, params: dict[str, Any]) -> set[str]:
    files = closure(stage_file(stage))
    sections = set() if stage in SHOWS_SETTINGS else {*PIPELINE["stages"][stage]["params"]}
    if BUILDS_MODELS in files:
        sections.add("model")
    for target in targets({section: params[section] for section in sections}):
        files |= closure(target_file(target))
    return {str(file.relative_to(ROOT)) for file in files}


def declared_code(stage: str, params: dict[str, Any]) -> set[str]:
    deps = {resolved(dep, params) for dep in PIPELINE["stages"][stage]["deps"]}
    files = {str(f.relative_to(ROOT)) for dep in deps for f in (ROOT / dep).rglob("*.py") if not is_empty(f)}
    return files | {dep for dep in deps if dep.endswith(".py")}


def test_make_deps_changes_nothing() -> None:
    text = (ROOT / "dvc.yaml").read_text("utf-8")
    assert rewritten(text) == text, "run `make deps` and commit dvc.yaml"


def test_make_deps_writes_what_was_taken_out() -> None:
    text = (ROOT / "dvc.yaml").read_text("utf-8")
    without = re.sub(r"(?m)^      - src/retinue/(?!stages/).*\n", "", text)
    assert without != text
    assert rewritten(without) == text


def test_every_stage_file_is_in_the_pipeline() -> None:
    assert sorted(PIPELINE["stages"]) == STAGES


CHOICES = [
    [],
    *([f"model={path.stem}"] for path in sorted((ROOT / "conf" / "model").glob("*.yaml"))),
    *([f"schedule={path.stem}"] for path in sorted((ROOT / "conf" / "schedule").glob("*.yaml"))),
    *([f"explain={path.stem}"] for path in sorted((ROOT / "conf" / "explain").glob("*.yaml"))),
    ["source=image_folder", "source.path=photos"],
    ["source=surfaces"],
    *(
        [f"transfer={path.stem}", "weights=file", "weights.path=weights.pth"]
        for path in sorted((ROOT / "conf" / "transfer").glob("*.yaml"))
    ),
]


@pytest.mark.parametrize("overrides", CHOICES, ids=lambda choice: " ".join(choice) or "default")
def test_declared_code_is_the_imported_code(overrides: list[str]) -> None:
    params = compose(overrides)
    for stage in STAGES:
        imported, declared = imported_code(stage, params), declared_code(stage, params)
        assert declared == imported, (
            f"dvc.yaml, stage {stage}: missing {sorted(imported - declared)}, "
            f"not imported {sorted(declared - imported)}"
        )


@pytest.mark.parametrize("stage", STAGES)
def test_declared_settings_are_those_the_stage_may_read(stage: str) -> None:
    sections = runpy.run_path(str(stage_file(stage)))["SECTIONS"]
    assert list(sections) == PIPELINE["stages"][stage]["params"]


@pytest.mark.parametrize("stage", [s for s in STAGES if s != "report"])
def test_every_declared_section_is_read(stage: str) -> None:
    own = stage_file(stage).read_text("utf-8").split("SECTIONS =", 1)[1].split("\n", 1)[1]
    parts = [file.read_text("utf-8") for file in closure(stage_file(stage)) if file.parent.name == "training"]
    for section in PIPELINE["stages"][stage]["params"]:
        read = "settings.seed" if section == "seed" else f'("{section}"'
        found = any(read in text for text in (own, *parts))
        assert found, f"{stage} declares the section {section!r} and never reads it"


def test_a_stage_cannot_read_what_it_does_not_declare() -> None:
    settings = Settings(load_params(ROOT / "params.yaml"), ("seed",))
    with pytest.raises(SettingsError, match="does not declare"):
        settings.plain("optimizer")


@pytest.mark.parametrize("stage", STAGES)
def test_stages_never_import_stages(stage: str) -> None:
    imported = {path for path in closure(stage_file(stage)) if path.parent.name == "stages"}
    assert imported == {stage_file(stage)}


@pytest.mark.parametrize("stage", ["acquire", "preprocess", "augment", "train"])
def test_only_later_stages_may_open_the_test_split(stage: str) -> None:
    deps = PIPELINE["stages"][stage]["deps"]
    assert not any(dep.startswith(("data/processed/test", "evaluation")) or dep == "data/processed" for dep in deps)


def test_params_yaml_is_the_composition_of_conf(tmp_path: Path) -> None:
    from retinue.pipeline.composition import compose_to

    compose_to(tmp_path / "params.yaml")
    composed = (tmp_path / "params.yaml").read_text("utf-8")
    assert composed == (ROOT / "params.yaml").read_text("utf-8"), "run `retinue compose` and commit params.yaml"


def test_imports_go_one_way() -> None:
    """Among packages and single files of the project, imports inside functions included."""
    rooms = {path.stem for path in (SRC / "retinue").iterdir()}
    graph: dict[str, set[str]] = {}
    for path in (SRC / "retinue").rglob("*.py"):
        room = path.relative_to(SRC / "retinue").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "retinue":
                parts = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                graph.setdefault(room, set()).update({parts[1]} & rooms - {room})
    assert len(graph) > 15
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, with the cycle


FRAMEWORK_HOMES = {
    "hydra": {"pipeline/composition.py", *(f"sweeps/{name}.py" for name in ("axes", "command", "launcher", "sweeper"))},
    "dvc": {"pipeline/composition.py", "experiments.py", "sweeps/checkout.py"},
    "optuna": {f"sweeps/{name}.py" for name in ("study", "sweeper", "table")},
    "submitit": {"sweeps/launcher.py"},
    "wandb": {"pipeline/wandb_client.py", "pipeline/tracker.py", "tracking/runs.py"},
    "wandb_workspaces": {"tracking/panels.py", "tracking/workspace.py"},
    "albumentations": {"images/augmentation.py"},
}


@pytest.mark.parametrize("framework", FRAMEWORK_HOMES)
def test_each_framework_stays_in_its_home(framework: str) -> None:
    users = set()
    for path in (SRC / "retinue").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == framework for name in names):
                users.add(path.relative_to(SRC / "retinue").as_posix())
    assert users <= FRAMEWORK_HOMES[framework]
