"""How the processor is shared between decoding and the network."""

import os


def usual_decoders() -> int:
    """Processes that decode while torch computes on all cores: half of the cores, at most 8."""
    return max(1, min(8, len(os.sched_getaffinity(0)) // 2 if hasattr(os, "sched_getaffinity") else 1))
