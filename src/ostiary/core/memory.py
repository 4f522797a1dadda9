"""The memory that this process has taken."""

import resource
import sys


def peak_rss() -> int:
    """The high-water mark of this process's resident memory so far, in bytes."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
