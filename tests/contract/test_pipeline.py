"""dvc.yaml declares exactly the code, the settings and the files each stage reads; params.yaml is conf/ composed."""

import ast
import graphlib
import re
import runpy
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from choices import GROUPS, choices_of, document, overrides_of
from compositions import compose
from dependencies import BUILDS_MODELS, SHOWS_SETTINGS, chosen, rewritten, stage_file, target_file, targets
from import_graph import SRC, closure, is_empty
from retinue.pipeline import artifacts
from retinue.pipeline.composition import load_params
from retinue.pipeline.errors import SettingsError
from retinue.pipeline.plan import sections_of
from retinue.pipeline.settings import EXECUTION_SECTIONS, Settings
from retinue.stages import __path__ as stages_path

ROOT = SRC.parent
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))
STAGES = sorted(path.stem for path in Path(stages_path[0]).glob("[a-z]*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def resolved(text: str, params: dict[str, Any]) -> str:
    """`text` with DVC's ${section.key} replaced from `params`."""

    def value(match: re.Match[str]) -> str:
        node: Any = params
        for key in match[1].split("."):
            node = node[key]
        return str(node)

    return re.sub(r"\$\{([\w.]+)\}", value, text)


def imported_code(stage: str, params: dict[str, Any]) -> set[str]:
    files = set(closure(stage_file(stage)))
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


def shared_by_choices(stage: str) -> set[str]:
    """What other choices of the stage's sections import: a stage declares it, whatever is chosen."""
    sections = set() if stage in SHOWS_SETTINGS else {*PIPELINE["stages"][stage]["params"]}
    return {str(file.relative_to(ROOT)) for section in sections for file in chosen(section)[0]}


@pytest.mark.slow
def test_make_deps_changes_nothing() -> None:
    text = (ROOT / "dvc.yaml").read_text("utf-8")
    assert rewritten(text) == text, "run `make deps` and commit dvc.yaml"


def test_make_deps_writes_what_was_taken_out() -> None:
    text = (ROOT / "dvc.yaml").read_text("utf-8")
    without = re.sub(r"(?m)^      - src/retinue/(?!stages/).*\n", "", text)
    assert without != text
    assert rewritten(without) == text


def test_every_stage_file_is_in_the_pipeline() -> None:
    for stage in {*STAGES} - {*PIPELINE["stages"]}:
        raise AssertionError(
            f"src/retinue/stages/{stage}.py: dvc.yaml has no stage {stage}. Add it with cmd: ${{stage}}.{stage}, "
            "params (the file's SECTIONS), deps and outs, and run `make deps`."
        )
    for stage in {*PIPELINE["stages"]} - {*STAGES}:
        raise AssertionError(f"dvc.yaml, stage {stage}: there is no file src/retinue/stages/{stage}.py.")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_started_as_itself_and_says_what_it_is(stage: str) -> None:
    definition = PIPELINE["stages"][stage]
    assert definition["cmd"] == f"${{stage}}.{stage}", f"dvc.yaml, stage {stage}: cmd is not ${{stage}}.{stage}"
    assert definition.get("desc"), f"dvc.yaml, stage {stage}: no desc says in a sentence what it makes"
    text = stage_file(stage).read_text("utf-8")
    assert f'main("{stage}", run, SECTIONS)' in text, (
        f'src/retinue/stages/{stage}.py does not end with `if __name__ == "__main__": main("{stage}", run, SECTIONS)`'
    )


def test_every_out_is_named_in_artifacts() -> None:
    paths = [value for value in vars(artifacts).values() if isinstance(value, Path)]
    written = set[Path]()
    for stage, definition in PIPELINE["stages"].items():
        outs = [*definition["outs"], *definition.get("metrics", [])]
        for out in (Path(next(iter(out)) if isinstance(out, dict) else out) for out in outs):
            assert any(out == path or path in out.parents or out in path.parents for path in paths), (
                f"dvc.yaml, stage {stage}: no path in src/retinue/pipeline/artifacts.py is {out}, above it or in it. "
                "Name it there, and say what is in it."
            )
            written.add(out)
    assert written == {*artifacts.OUTS}, "OUTS in src/retinue/pipeline/artifacts.py is not what the stages write."


CHOICES = [
    (),
    *(
        overrides_of(group, name)
        for group in sorted({*GROUPS} - {"sweep"})
        for name in choices_of(group)
        if {"defaults", "module"} & document(group, name).keys() or any(targets(document(group, name)))
    ),
]
"""The default, and all that choose code."""


@pytest.mark.parametrize("overrides", CHOICES, ids=lambda choice: " ".join(choice) or "default")
def test_declared_code_is_the_imported_code(overrides: tuple[str, ...]) -> None:
    params = compose(overrides)
    for stage in PIPELINE["stages"]:
        imported, declared = imported_code(stage, params), declared_code(stage, params)
        unused = declared - imported - shared_by_choices(stage)
        missing = imported - declared
        assert not (missing | unused), (
            f"dvc.yaml, stage {stage}: missing {sorted(missing)}, not imported {sorted(unused)}. Run `make deps`."
        )


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_the_sections_of_its_plan(stage: str) -> None:
    module = runpy.run_path(str(stage_file(stage)))
    plan = module.get(f"{stage.title()}Plan")
    assert plan is not None, f"src/retinue/stages/{stage}.py has no dataclass {stage.title()}Plan of its sections"
    assert list(module["SECTIONS"]) == list(sections_of(plan)) == PIPELINE["stages"][stage]["params"], (
        f"dvc.yaml, stage {stage}: params are not the sections of {stage.title()}Plan"
    )
    assert {field.name for field in fields(plan)} <= {*sections_of(plan), *EXECUTION_SECTIONS}


@pytest.mark.parametrize("stage", STAGES)
def test_only_the_door_of_a_stage_reads_settings(stage: str) -> None:
    """Below stages/ and pipeline/ nothing takes a section of the settings: it is given what it needs, typed."""
    for path in closure(stage_file(stage)):
        if path.parent.name not in ("stages", "pipeline"):
            assert "Settings" not in {a.name for a in _imported_names(path, "retinue.pipeline.settings")}, path


def _imported_names(path: Path, module: str) -> list[ast.alias]:
    tree = ast.parse(path.read_text("utf-8"))
    return [a for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == module for a in n.names]


def test_a_stage_cannot_read_what_it_does_not_declare() -> None:
    settings = Settings(load_params(ROOT / "params.yaml"), ("seed",))
    with pytest.raises(SettingsError, match="does not declare"):
        settings.plain("optimizer")


@pytest.mark.parametrize("stage", STAGES)
def test_stages_never_import_stages(stage: str) -> None:
    imported = {path for path in closure(stage_file(stage)) if path.parent.name == "stages"}
    assert imported == {stage_file(stage)}, "what two stages need stands in a room of its own"


def before(stage: str) -> set[str]:
    """The stages that must have run before `stage`."""
    reads = [Path(dep) for dep in PIPELINE["stages"][stage]["deps"]]
    found = set()
    for name, definition in PIPELINE["stages"].items():
        outs = [Path(out) for out in definition["outs"]]
        if any(out == dep or out in dep.parents or dep in out.parents for out in outs for dep in reads):
            found |= {name, *before(name)}
    return found


def test_only_later_stages_may_open_the_test_split() -> None:
    """Neither train nor any stage that it needs."""
    learning = {*before("train"), "train"}
    assert {"acquire", "preprocess", "augment"} <= learning
    assert "evaluate" not in learning
    for stage in learning:
        for dep in PIPELINE["stages"][stage]["deps"]:
            assert not dep.startswith(("data/processed/test", "evaluation")), f"dvc.yaml, stage {stage}: reads {dep}"
            assert dep != "data/processed", f"dvc.yaml, stage {stage}: reads {dep}, which holds the test split"


def test_params_yaml_is_the_composition_of_conf(tmp_path: Path) -> None:
    from retinue.pipeline.composition import compose_to

    compose_to(tmp_path / "params.yaml")
    composed = (tmp_path / "params.yaml").read_text("utf-8")
    assert composed == (ROOT / "params.yaml").read_text("utf-8"), "run `retinue compose` and commit params.yaml"


@pytest.mark.slow
def test_imports_go_one_way() -> None:
    """Among packages and single files of the project, imports inside functions included."""
    rooms = {path.stem for path in (SRC / "retinue").iterdir()}
    graph: dict[str, set[str]] = {}
    for path in (SRC / "retinue").rglob("*.py"):
        room = path.relative_to(SRC / "retinue").parts[0].removesuffix(".py")
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "retinue":
                parts = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                graph.setdefault(room, set()).update({parts[1]} & rooms - {room})
    assert len(graph) > 15
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, with the cycle


FRAMEWORK_HOMES = {
    "hydra": {
        *(f"pipeline/{name}.py" for name in ("composition", "overrides")),
        *(f"sweeps/{name}.py" for name in ("axes", "command", "launcher")),
    },
    "dvc": {"pipeline/composition.py", "experiments/outcomes.py", "sweeps/checkout.py"},
    "optuna": {f"sweeps/{name}.py" for name in ("study", "sweeper", "table")},
    "submitit": {"sweeps/launcher.py"},
    "wandb": {"pipeline/wandb_charts.py", "pipeline/wandb_client.py", "pipeline/tracker.py", "tracking/runs.py"},
    "wandb_workspaces": {"tracking/panels.py", "tracking/workspace.py"},
    "albumentations": {"images/augmentation.py"},
    "onnx": {"serving/export/onnx_file.py"},
    "onnxscript": {"serving/export/onnx_file.py"},
    "onnxruntime": {f"serving/export/{name}.py" for name in ("int8", "onnx_file", "onnx_session")},
    "fastapi": {"serving/serve/app.py"},
    "starlette": {f"serving/serve/{name}.py" for name in ("app", "bodies", "connections")},
    "uvicorn": {"serving/serve/connections.py"},
    "h11": {"serving/serve/connections.py"},
    "prometheus_client": {"serving/serve/monitoring.py"},
}


@pytest.mark.parametrize("framework", FRAMEWORK_HOMES)
def test_each_framework_stays_in_its_home(framework: str) -> None:
    users = set()
    for path in (SRC / "retinue").rglob("*.py"):
        for node in ast.walk(parsed(path)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == framework for name in names):
                users.add(path.relative_to(SRC / "retinue").as_posix())
    assert users <= FRAMEWORK_HOMES[framework]


def test_loading_processes_are_started_in_one_place() -> None:
    users = {
        path.relative_to(SRC / "retinue").as_posix()
        for path in (SRC / "retinue").rglob("*.py")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom) and any(alias.name == "DataLoader" for alias in node.names)
    }
    assert users == {"engine/loading.py"}, "make_loader explains how loading processes end"
