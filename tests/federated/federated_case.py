"""What the tests of federated learning share."""

from typing import Any

import numpy as np

from ostiary.core.run import Run
from ostiary.federated.verdict import Aggregated, Context


def context(updates: Any, **more: Any) -> Context:
    """A context for updates [n, d]: equal shares, a global model of zeros, clients c0, c1, ..."""
    n, d = np.shape(updates)
    told = {
        "clients": tuple(f"c{i}" for i in range(n)),
        "weights": np.zeros(d),
        "shares": np.full(n, 1 / n),
        "round": 1,
    }
    return Context(**(told | more))


def aggregate(rule: Any, updates: Any, run: Run | None = None, **more: Any) -> Aggregated:
    """The verdict of a rule on updates given as lists."""
    updates = np.array(updates, float)
    return rule.aggregate(updates, context(updates, **more), run=run or Run())


def codes(found: Aggregated) -> list[str]:
    """The code of each client's reason."""
    return [reason.code for reason in found.reasons]
