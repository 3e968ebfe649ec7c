"""Keeps resident memory near what is in use: glibc otherwise holds on to what tensors of many sizes leave."""

import ctypes
import gc
import os

M_MMAP_THRESHOLD = -3  # of mallopt(3)
LARGE = 4 * 2**20


def keep_apart() -> None:
    """Give each large tensor pages of its own, returned when it dies. Call it once, before the first tensor.

    By default glibc raises that bound to 32 MB as soon as such blocks are freed, and the tensors of a training
    step then break its heap into pieces. Does nothing where the C library has no mallopt. New pages cost a fault each,
    a fifth of a training's time: they are asked for as huge ones, where the system has them.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by torch
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        adjust(M_MMAP_THRESHOLD, LARGE)


def give_back() -> None:
    """Return free heap pages to the operating system; does nothing where the C library cannot."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
