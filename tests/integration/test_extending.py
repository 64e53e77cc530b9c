"""docs/extending.md as pasted: every example goes where it says, no test is edited, and the whole of it runs."""

import ast
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import pytest
import yaml

from project import ROOT, Project

DOCUMENT = (ROOT / "docs" / "extending.md").read_text("utf-8")
HEADER = re.compile(r"(?:#|<!--) (at the end of )?([\w./-]+)(?:, above `(.+)`)?(?: -->)?")


class Block(NamedTuple):
    """A fenced block: its text without the first line, and where that line says it goes.

    Attributes:
        language: of the fence.
        path: of the file, below the checkout.
        is_last: it goes to the end of a file that is there.
        above: it goes before the first line that begins so, of a file that is there; "" is no such place.
        text: what is pasted.
    """

    language: str
    path: Path
    is_last: bool
    above: str
    text: str

    def paste(self, root: Path) -> None:
        """Writes the block where it goes."""
        path = root / self.path
        if not self.is_last and not self.above:
            assert not path.exists(), f"{self.path} is there already"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.text, "utf-8")
            return
        before = path.read_text("utf-8")
        if self.is_last:
            path.write_text(before.rstrip("\n") + "\n\n\n" + self.text, "utf-8")
            return
        assert f"\n{self.above}" in before, f"{self.path} has no line that begins with {self.above!r}"
        blank = "\n\n" if "def " in self.text else ""
        path.write_text(before.replace(f"\n{self.above}", f"\n{self.text}{blank}{self.above}", 1), "utf-8")


def blocks() -> Iterator[Block]:
    for language, text in re.findall(r"(?ms)^```(\w+)\n(.*?)^```$", DOCUMENT):
        first, rest = text.split("\n", 1)
        header = HEADER.fullmatch(first)
        assert header, f"docs/extending.md: the first line of a block is {first!r}. Expected where the block goes."
        yield Block(language, Path(header[2]), bool(header[1]), header[3] or "", rest)


BLOCKS = list(blocks())
NEW = [block for block in BLOCKS if not block.is_last and not block.above]
NAMES = sorted({block.path.stem for block in NEW} - {"default"} | {"top3", "classes"})


def test_every_block_is_python_yaml_or_a_page() -> None:
    assert len(BLOCKS) >= 18
    for block in BLOCKS:
        assert block.language in {"python", "yaml", "markdown"}
        if block.language == "python":
            ast.parse(dedent(block.text))
        if block.language == "yaml":
            yaml.safe_load(block.text)


def test_no_block_is_a_test_and_every_addition_has_one() -> None:
    assert not [block.path for block in BLOCKS if block.path.parts[0] == "tests"]
    sections = {
        "architecture",
        "data source",
        "scenario",
        "optimizer",
        "schedule",
        "augmentation",
        "Preprocessing",
        "operation",
    }
    sections |= {"experiment", "sweep", "metric", "baseline", "explainer", "command", "stage"}
    headings = [part.split("\n", 1) for part in DOCUMENT.split("\n## ")[1:]]
    for name in sections:
        assert any(name in heading and "```" in text for heading, text in headings), f"no example of: {name}"


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A checkout with its tests, in which all blocks stand where they go."""
    project = Project.create(tmp_path_factory.mktemp("extended") / "project")
    for name in ("tests", "tools", "docs", "benchmarks", "README.md"):
        source, target = ROOT / name, project.path / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    for name in ("cpu", "ddp"):  # as committed: its tests make checkouts of it
        shutil.copy2(ROOT / f"conf/trainer/{name}.yaml", project.path / f"conf/trainer/{name}.yaml")
    for block in BLOCKS:
        block.paste(project.path)
    for tool in ("dependencies", "settings_table"):
        project.run(sys.executable, f"tools/{tool}.py")
    project.compose()
    return project


@pytest.mark.slow
def test_the_contract_tests_take_what_was_added(extended: Project) -> None:
    """Those that know the new names, and those of the whole pipeline."""
    added = f"({' or '.join(NAMES)}) and (choices or pipeline or sources or commands or sweeps)"
    whole = "pipeline and (deps or every_out or every_stage or composition or one_way or of_its_plan)"
    sections = "the_sections_are or all_sections or page_of_the_settings or MistakesSettings"
    wanted = f"two_layers or top3 or posterize or ({added}) or ({whole}) or every_file_of or {sections}"
    paths = ["tests/contract", "tests/unit/test_metrics_contract.py", "tests/unit/test_ranges.py"]
    paths.append("tests/integration/test_report.py")
    result = extended.run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths, "-k", wanted)
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed, result.stdout
    assert int(passed[1]) > 2 * len(NAMES)


@pytest.mark.slow
def test_the_code_has_the_style_of_the_project(extended: Project) -> None:
    files = [str(block.path) for block in BLOCKS if block.language == "python"]
    for command in (["check"], ["format", "--check", "--line-length", "120"]):
        extended.run(sys.executable, "-m", "ruff", *command, *files)


@pytest.mark.slow
def test_the_pipeline_runs_with_what_was_added(extended: Project, tmp_path: Path) -> None:
    project = extended.copy(tmp_path / "project")
    parts = ("source=stripes", "model=two_layers", "explain=saliency", "optimizer=adamax", "schedule=linear")
    quick = ("train.max_epochs=20", "train.patience=20", "tracking=off")
    alone = ("trainer.num_workers=0", "trainer.num_threads=1")
    # A turn would turn one class into the other.
    project.compose(*parts, *quick, *alone, "augment=none", "optimizer.lr=0.01")
    *learning, last = ("train", "calibrate", "baseline", "evaluate", "explain", "mistakes", "report")
    for stage in ("acquire", "preprocess", "augment", *learning, last):
        project.stage(stage)
    metrics = json.loads((project.path / "evaluation/metrics.json").read_text("utf-8"))
    assert metrics["top3_accuracy_score"] == 1.0  # of two classes
    mistakes = json.loads((project.path / "mistakes/mistakes.json").read_text("utf-8"))
    assert len(mistakes) == min(20, round((1 - metrics["accuracy_score"]) * metrics["num_images"]))
    page = (project.path / "report/index.html").read_text("utf-8")
    assert "top3_accuracy_score" in page
    assert "among the three most probable" in page
    assert "saliency" in page
    refused = project.run(sys.executable, "-m", "retinue.cli", "compose", "mistakes.most=0", check=False)
    assert "mistakes.most: got 0, expected an integer in [1, 1000]." in refused.stderr
    shown = project.run(sys.executable, "-m", "retinue.cli", "classes").stdout
    assert shown.split() == ["level", "upright"]
    overrides = ("model=two_layers", "transfer=half", "weights=none")
    described = project.run(sys.executable, "-m", "retinue.cli", "describe", *overrides).stdout
    assert "classifier" in described


LEFT_OUT = {
    "conf/model/two_layers.yaml": "Write conf/model/two_layers.yaml.",
    "dvc.yaml": "src/retinue/stages/mistakes.py: dvc.yaml has no stage mistakes. Add it",
    "docs/bundle.md": "`retinue classes` is on no page of docs/.",
}
OTHERWISE = {
    "src/retinue/models/two_layers.py": "no file src/retinue/models/two_layers.py. Write it.",
    "src/retinue/stages/mistakes.py": "there is no file src/retinue/stages/mistakes.py.",
    "src/retinue/pipeline/artifacts.py": "no path in src/retinue/pipeline/artifacts.py is mistakes",
}


@pytest.mark.slow
@pytest.mark.parametrize("messages", [LEFT_OUT, OTHERWISE], ids=["what names it", "what is named"])
def test_steps_left_out_are_named(messages: dict[str, str], extended: Project, tmp_path: Path) -> None:
    project = extended.copy(tmp_path / "project")
    for name in messages:
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, project.path / name)
        else:
            (project.path / name).unlink()
    paths = [f"tests/contract/test_{name}.py" for name in ("choices", "pipeline", "commands")]
    wanted = "every_file_of or every_stage or every_out or documented or (names_code and two_layers)"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths, "-k", wanted]
    result = project.run(*command, check=False)
    assert result.returncode == 1, result.stdout
    for message in messages.values():
        assert message in result.stdout
