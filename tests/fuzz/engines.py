"""Where inputs come from: random changes that follow new answers, hypothesis, or atheris, which follows coverage."""

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import strategies as st
from tests.fuzz.mutation import LONGEST, TEXTS, VALUES, Mutator
from tests.fuzz.probe import Probe
from tests.fuzz.target import Target

KEPT = 400
"""Inputs that brought new answers and are changed further, at most."""

MAX_SLOW = 10
"""Of the inputs of a process; then it ends."""

_DRAWN_SHARE, _MOST_DRAWN = 0.02, 2000
"""Of the inputs of a target that is no binary format, those that hypothesis makes."""


def make_mutator(target: Target, drawn: random.Random) -> Mutator:
    """What changes inputs of `target`."""
    return Mutator(drawn, target.kind, target.tokens, headed=target.headed, repair=target.repair)


def mutate(target: Target, probe: Probe, inputs: int, seed: int, flush: Callable[[], None]) -> None:
    """Tries the seeds, what hypothesis makes, and changes of inputs whose answers were new.

    Args:
        target: whose seeds are changed.
        probe: reads them.
        inputs: number of inputs in all.
        seed: of chance.
        flush: called now and then, so that what was found outlives this process.
    """
    drawn = random.Random(seed)
    mutator = make_mutator(target, drawn)
    seeds = target.seeds()
    pool = list(seeds)
    for data in seeds[:inputs]:
        probe.attempt(data)
    if target.kind != "bytes":
        by_hypothesis(target, probe, min(int(inputs * _DRAWN_SHARE), _MOST_DRAWN), seed)
    while probe.tally.inputs < inputs and probe.slow_inputs < MAX_SLOW:
        # the newest answers are the least explored
        at = drawn.randrange(len(pool)) if drawn.random() < 0.7 else max(0, len(pool) - 1 - drawn.randrange(20))
        data = mutator.mutate(pool[at], drawn.choice(pool))
        if probe.attempt(data):
            if len(pool) >= KEPT:
                pool[drawn.randrange(len(seeds), KEPT)] = data
            else:
                pool.append(data)
        if probe.tally.inputs % 1000 == 0:
            flush()


def by_hypothesis(target: Target, probe: Probe, inputs: int, seed: int) -> None:
    """Tries documents and texts that hypothesis makes."""
    if inputs < 1:
        return
    quiet = hypothesis.settings(
        max_examples=inputs,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate,),
    )

    @hypothesis.seed(seed)
    @quiet
    @hypothesis.given(_inputs(target))
    def attempt(data: bytes) -> None:
        probe.attempt(data)

    attempt()


def _inputs(target: Target) -> st.SearchStrategy[bytes]:
    seeds = target.seeds()
    if target.kind == "json":
        return st.tuples(st.sampled_from(seeds), st.data(), _nodes()).map(lambda drawn: _with_node(target, *drawn))
    pieces = st.one_of(st.sampled_from(TEXTS), st.text(max_size=8), st.sampled_from([_decoded(each) for each in seeds]))
    texts = st.lists(pieces, max_size=8).map("".join)
    return texts.map(lambda text: text.encode("utf-8", "surrogatepass")[:LONGEST])


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _nodes() -> st.SearchStrategy[Any]:
    leaves = st.one_of(st.sampled_from(VALUES), st.integers(), st.floats(), st.text(max_size=20))
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    )


def _with_node(target: Target, seed: bytes, draw: Any, node: Any) -> bytes:
    """A seed with one of its nodes replaced."""
    head, newline, rest = seed.partition(b"\n") if target.headed else (b"", b"", seed)
    try:
        document = json.loads(rest)
    except ValueError:
        return seed
    holder: Any = [document]
    key: Any = 0
    while isinstance(holder[key], list | dict) and holder[key] and draw.draw(st.integers(0, 3)):
        holder = holder[key]
        key = draw.draw(st.sampled_from(list(holder) if isinstance(holder, dict) else list(range(len(holder)))))
    if holder is not document and isinstance(holder, list) and holder[key] is document:
        document = node
    else:
        holder[key] = node
    return head + newline + json.dumps(document).encode()[:LONGEST]


def follow_coverage(target: Target, probe: Probe, inputs: int, seed: int, flush: Callable[[], None]) -> None:
    """Has libFuzzer choose, by the code that each input reaches; ends this process. Needs atheris."""
    import atheris

    drawn = random.Random(seed)
    mutator = make_mutator(target, drawn)
    seeds = target.seeds()

    def change(data: bytes, longest: int, number: int) -> bytes:
        drawn.seed(number)
        if drawn.random() < 0.3:
            return atheris.Mutate(data, longest)
        return mutator.mutate(data or drawn.choice(seeds), drawn.choice(seeds))[:longest]

    def attempt(data: bytes) -> None:
        if probe.tally.inputs >= inputs:
            flush()
            Path("../whole").touch()
            os.kill(os.getpid(), signal.SIGKILL)  # libFuzzer never comes back, and takes an exit for a fault
        probe.attempt(data)
        if probe.tally.inputs % 1000 == 0:
            flush()

    for data in seeds[:inputs]:
        probe.attempt(data)
    os.makedirs("corpus")  # noqa: PTH103 - the working folder is the target's own
    for number, data in enumerate(seeds):
        with open(f"corpus/{number}", "wb") as file:  # noqa: PTH123
            file.write(data)
    arguments = [sys.argv[0], f"-seed={seed + 1}", "-runs=-1", "-timeout=0", "-rss_limit_mb=0", f"-max_len={LONGEST}"]
    atheris.Setup([*arguments, "-verbosity=0", "corpus"], attempt, custom_mutator=change)
    atheris.Fuzz()
