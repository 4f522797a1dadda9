"""The memory that this process has taken, and what gives some of it back."""

import mmap
import resource
import sys

import numpy as np


def peak_rss() -> int:
    """The high-water mark of this process's resident memory so far, in bytes."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def let_go(array: np.ndarray) -> None:
    """Take the pages of a mapped file out of this process's memory: they are read anew when they are asked for.

    What was written stays with the system until it is on the disk. Nothing happens to an array that is not mapped.
    """
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)


def rows_of(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A copy of these rows, by number or as a mask; of a mapped array no more than these stays in memory."""
    found: np.ndarray = array[rows]
    let_go(array)
    return found
