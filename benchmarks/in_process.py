"""Stages run in this process, in a folder of their own: many small trainings without seven start-ups each."""

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from retinue.pipeline.composition import compose
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import Tracker
from retinue.stages import acquire, augment, baseline, evaluate, preprocess, train

DATA_STAGES = (acquire, preprocess, augment, baseline)
_QUIET = ("tracking=off", "trainer.num_workers=0", "trainer.progress_bar=false")


class Pipeline:
    """The data of one composition in a temporary folder, and trainings on them.

    Args:
        overrides: of conf/, for the data stages.
    """

    def __init__(self, overrides: Sequence[str]):
        self._folder = tempfile.TemporaryDirectory(prefix="retinue-")
        self._overrides = list(overrides)
        for stage in DATA_STAGES:
            self.run(stage, self.settings())

    @property
    def path(self) -> Path:
        """The folder with data/, models/ and evaluation/."""
        return Path(self._folder.name)

    def settings(self, *overrides: str) -> Settings:
        """The composition with further `overrides`."""
        return Settings(compose(["baseline=none", *self._overrides, *overrides, *_QUIET]))

    def run(self, stage: Any, settings: Settings) -> None:
        """Runs a stage here; what it prints is left out."""
        with self.inside(), contextlib.redirect_stdout(io.StringIO()):
            stage.run(settings, Tracker(None))

    def trained(self, *overrides: str) -> dict[str, Any]:
        """Trains and evaluates with further `overrides`; metrics.json, with the documents of models/ beside it."""
        settings = self.settings(*overrides)
        self.run(train, settings)
        self.run(evaluate, settings)
        return {
            **self.document("evaluation/metrics.json"),
            "transfer": self.document("models/transfer.json"),
            "bundle": self.document("models/bundle.json"),
        }

    def document(self, path: str) -> dict[str, Any]:
        """A JSON output."""
        return json.loads((self.path / path).read_text("utf-8"))

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """The folder as working directory, as stages expect."""
        before = Path.cwd()
        os.chdir(self.path)
        try:
            yield
        finally:
            os.chdir(before)
