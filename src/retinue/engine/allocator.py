"""The allocator of this process: memory that a training step frees is kept for the next one."""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEPT = {
    _M_MMAP_THRESHOLD: 2**30,  # bytes; smaller blocks come from the heap, which keeps what is freed
    _M_TRIM_THRESHOLD: 2**31 - 1,  # bytes free at its end before any are given back
    _M_TOP_PAD: 2**26,  # bytes by which it grows beyond what is asked for
}


def keep_freed_memory() -> None:
    """Has glibc keep what is freed; without effect under another C library, and on what is allocated already.

    By itself it maps every large block anew and gives it back at once, so that each step faults all its activations in
    again: half the time of a step of MobileNet v2 on a CPU. The price is some memory, and no result depends on it. Not
    for a process that decodes files: there the largest file decides what is kept.

    Source: mallopt(3) of the Linux man pages.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for option, value in _KEPT.items():
        if not libc.mallopt(option, value):
            raise OSError(f"mallopt({option}, {value}) is refused by glibc")
