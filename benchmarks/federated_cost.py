"""What a rule alone costs in a round, beside plain averaging of the same updates, in the same run.

    python -m benchmarks.federated_cost
    python -m benchmarks.federated_cost --clients 100 --parameters 11000000

Updates are float32 noise (4.4 GB at 100 clients of 11 million weights); averaging them in blocks, with sums in
float64, is the floor. They are handed straight to the rule: what reading replies, admission and the float64 copies
that `Server` makes of them cost is not in it, and a server with float64 updates needs twice the memory. `guard` and
`fltrust` are given an update of the server's own, and training that is not counted. Blocks run in turn; medians of
wall time are compared. DeepSight is left out: its time is that of running every client's model. Memory is the high-
water mark of the process beside the updates.
"""

import statistics
import time
from functools import partial
from typing import Any

import numpy as np
from benchmarks.common import Records, interleaved, parse, parser

from ostiary.core.catalog import make
from ostiary.core.memory import peak_rss
from ostiary.core.run import Run
from ostiary.federated.geometry import weighted
from ostiary.federated.verdict import Array, Context

RULES = ("norm-clip", "rfa", "fltrust", "flame", "flame-updates", "rlr", "foolsgold", "guard")


def seconds(rule: Any, updates: Array, own: Array) -> float:
    """The wall time of one round."""
    n, d = updates.shape
    context = Context(
        clients=tuple(f"client-{i:03d}" for i in range(n)),
        weights=np.full(d, 1e-3),
        shares=np.full(n, 1 / n),
        round=1,
        root=lambda: own,
    )
    begun = time.perf_counter()
    if rule is None:
        weighted(updates, context.shares)
    else:
        rule.aggregate(updates, context, run=Run())
    return time.perf_counter() - begun


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--clients", type=int, default=100)
    made.add_argument("--parameters", type=int, default=11_000_000)
    made.add_argument("--repeats", type=int, default=3)
    args = parse(made)
    about = (
        "Seconds that the rule alone takes in a round, from float32 updates, and how many times that of plain "
        "averaging, by medians. Admission, and the float64 copies that a server makes of updates, are not in it."
    )
    records = Records("federated_cost", "Federated learning: what a rule alone costs", about, args)
    table = f"{args.clients} clients, {args.parameters / 1e6:g} million weights"
    rng = np.random.default_rng(0)
    begun = time.monotonic()
    updates = np.empty((args.clients, args.parameters), np.float32)
    for row in updates:
        rng.standard_normal(dtype=np.float32, out=row)
    own = updates[0].astype(np.float64)
    held = peak_rss()
    rules: dict[str, Any] = {"averaging": None} | {name: make("aggregate", name) for name in RULES}
    blocks = {name: partial(seconds, rule, updates, own) for name, rule in rules.items()}
    found = interleaved(blocks, args.repeats)
    floor = statistics.median(found["averaging"])
    for name, values in found.items():
        median = statistics.median(values)
        records.add(
            table,
            name,
            {"seconds": median, "lowest": min(values), "highest": max(values), "times averaging": median / floor},
            seeds=[0],
            n=args.repeats,
            seconds=time.monotonic() - begun,
        )
    row = {"GB of the updates": updates.nbytes / 1e9, "GB beside them at most": (peak_rss() - held) / 1e9}
    records.add(table, "memory", row, seeds=[0], n=args.repeats, seconds=time.monotonic() - begun)
    records.show()


if __name__ == "__main__":
    main()
