"""The command `retinue describe`."""

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from retinue.describe.describe import describe
from retinue.describe.measurement import Measured, measure_step
from retinue.describe.request import DescribeRequest
from retinue.describe.table import as_text
from retinue.pipeline.numbers import figure, seconds, short
from retinue.pipeline.settings import Settings

SLOW_S = 5.0


def run(composition: Mapping[str, Any], sizes: Mapping[str, Any], *, with_measure: bool, as_json: bool) -> None:
    """Prints what the network of `composition` is and costs.

    Args:
        composition: of conf/.
        sizes: `num_classes`, and `channels`, `image_size`, `batch_size` where not None instead of the composition's.
        with_measure: also trains it for two steps.
        as_json: one JSON document instead of the table.
    """
    case = DescribeRequest.of(Settings(composition), **sizes)
    with _patience(f"describing {case.model['name']} …"):
        with torch.device("meta"):
            network = case.network()
        description = describe(network, case.input_shape, case.batch_size, case.optimizer)
    measured = None
    if with_measure:
        with _patience(f"training {case.model['name']} for two steps of {case.batch_size} images …"):
            measured = measure_step(case)
    if as_json:
        heading = {"model": case.model["name"], "num_classes": case.num_classes, "optimizer": case.optimizer["name"]}
        document = {**heading, **description.document()}
        print(json.dumps(document | ({"measured": asdict(measured)} if measured else {}), indent=2))
        return
    print(f"{case.model['name']} for {case.num_classes} classes, optimizer {case.optimizer['name']}\n")
    print(as_text(description))
    if measured is not None:
        print(_measured_lines(measured))


def _measured_lines(measured: Measured) -> str:
    size = measured.peak_growth_bytes
    return (
        f"{'measured':<20}  {figure(size):>15}  {short(size, 'B'):>8}  growth of a process, CPU\n"
        f"{'time of a step':<20}  {seconds(measured.step_s):>15}{'':10}  {measured.threads} threads"
    )


@contextmanager
def _patience(message: str) -> Iterator[None]:
    """Says `message` on stderr if what is done inside takes long."""
    timer = threading.Timer(SLOW_S, print, [message], {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
