"""Seeds, deterministic algorithms, and draws that depend on nothing but their arguments."""

import hashlib
import os
import random

import numpy as np


def draw_seed(*parts: int | str) -> int:
    """A seed in [0, 2³²) that is a function of `parts` alone: the first four bytes of their SHA-256.

    >>> draw_seed(0, 1, 2) == draw_seed(0, 1, 2) != draw_seed(0, 2, 1)
    True
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "little")


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch (all devices) with `seed`."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def use_deterministic_algorithms(num_threads: int | None) -> None:
    """Makes torch bitwise repeatable on one kind of machine.

    Args:
        num_threads: threads of one operation on the CPU; None leaves torch's choice, the number of cores. Sums are
            split by thread, so this number is part of the result.
    """
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS refuses deterministic mode without it
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
