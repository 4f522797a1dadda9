"""How much of the poison a screener found, and how much else it flagged."""

import numpy as np

from ostiary.core.records import Rate


def detection_rates(suspected: np.ndarray, poisoned: np.ndarray) -> tuple[Rate, Rate]:
    """True and false positive rate of `suspected` against `poisoned`, both boolean [n].

    The first is over the poisoned samples, the second over the others. Poison that is not flagged is
    missed, never a false positive: with nothing flagged both rates are 0. Without poison the first
    has no value.
    """
    true = Rate(k=int((suspected & poisoned).sum()), n=int(poisoned.sum()))
    false = Rate(k=int((suspected & ~poisoned).sum()), n=int((~poisoned).sum()))
    return true, false
