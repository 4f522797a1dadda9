"""What a rule alone costs in a round, beside plain averaging of the same updates, in the same run.

    OMP_NUM_THREADS=1 python -m benchmarks.federated_cost --parameters 1100000 --flower krum trimmed-mean median bulyan
    OMP_NUM_THREADS=1 python -m benchmarks.federated_cost --rules norm-clip rfa fltrust flame flame-updates rlr guard

Updates are float32 noise (4.4 GB at 100 clients of 11 million weights). Two floors: Flower's own averaging
(`FedAvg.aggregate_train`, in float32, of replies that hold these updates), and averaging in blocks, with sums in
float64. Rules get the updates themselves: what reading replies, admission and the float64 copies that `Server` makes of
them cost is not in it, and a server with float64 updates needs twice the memory. Flower reads its replies each time,
which is in its figures. `guard` and `fltrust` are given an update of the server's own, and training that is not
counted. DeepSight is left out: its time is that of running every client's model. `--flower` adds strategies of
Flower's, told of one attacker in five clients; at 100 clients of 11 million weights these, and FoolsGold with its sums
of past updates, need more than 24 GB. Blocks run in turn; medians of wall time are compared. Memory is what was held
beside the updates at most; it is read as Linux tells it.
"""

import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
from benchmarks.common import Records, note, parse, parser, spread
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower

from ostiary.core.catalog import make
from ostiary.core.run import Run
from ostiary.federated.geometry import weighted
from ostiary.federated.verdict import Array, Context

Block: TypeAlias = Callable[[], tuple[float, int]]
RULES = ("norm-clip", "rfa", "fltrust", "flame", "flame-updates", "rlr", "foolsgold", "guard")
FLOOR, IN_BLOCKS = "Flower's averaging", "averaging in blocks"


def strategies(n: int) -> dict[str, Callable[[], Any]]:
    """Flower's own, told of one attacker in five clients."""
    f = n // 5
    return {
        "krum": lambda: flower.Krum(num_malicious_nodes=f),
        "trimmed-mean": lambda: flower.FedTrimmedAvg(beta=0.2),
        "median": flower.FedMedian,
        "bulyan": lambda: flower.Bulyan(num_malicious_nodes=f),
    }


def of_flower(made: Any, updates: Array) -> Block:
    """One round of a strategy of Flower's; some of them empty the replies, so that each round has new ones."""

    def block() -> tuple[float, int]:
        replies = replies_of(updates)
        return timed(lambda: made.aggregate_train(1, replies))

    return block


def of_rule(rule: Any, updates: Array, own: Array) -> Block:
    """One round of a rule; None: averaging in blocks."""
    n, d = updates.shape
    context = Context(
        clients=tuple(f"client-{i:03d}" for i in range(n)),
        weights=np.full(d, 1e-3),
        shares=np.full(n, 1 / n),
        round=1,
        root=lambda: own,
    )

    def block() -> tuple[float, int]:
        if rule is None:
            return timed(lambda: weighted(updates, context.shares))
        return timed(lambda: rule.aggregate(updates, replace(context, memory={}), run=Run()))

    return block


def timed(block: Callable[[], Any]) -> tuple[float, int]:
    """Seconds, and the bytes that were held at most beyond what was held before."""
    held, begun = reset_peak(), time.perf_counter()
    block()
    seconds = time.perf_counter() - begun
    return seconds, peak() - held


def reset_peak() -> int:
    """Sets the mark of the most memory held back to what is held now, and tells it."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """The most bytes held since the mark was set back."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def replies_of(updates: Array) -> list[Any]:
    """The updates as Flower gets them."""
    return [
        SimpleNamespace(
            content=RecordDict(
                {
                    "arrays": ArrayRecord({"weights": FlowerArray(update)}),
                    "metrics": MetricRecord({"num-examples": 1.0}),
                }
            ),
            has_error=lambda: False,
        )
        for update in updates
    ]


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--clients", type=int, default=100)
    made.add_argument("--parameters", type=int, default=11_000_000)
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--rules", nargs="+", default=list(RULES), choices=RULES, metavar="RULE")
    made.add_argument("--flower", nargs="+", default=[], choices=list(strategies(5)), metavar="STRATEGY")
    args = parse(made)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    about = (
        "Seconds that the rule alone takes in a round, from float32 updates, and how many times that of plain "
        "averaging, by medians: Flower's own, and ours in blocks. Admission, and the float64 copies that a server "
        "makes of updates, are not in it."
    )
    records = Records("federated_cost", "Federated learning: what a rule alone costs", about, args)
    table = f"{args.clients} clients, {args.parameters / 1e6:g} million weights"
    rng = np.random.default_rng(0)
    begun = time.monotonic()
    updates = np.empty((args.clients, args.parameters), np.float32)
    for row in updates:
        rng.standard_normal(dtype=np.float32, out=row)
    own = updates[0].astype(np.float64)
    known = strategies(args.clients)
    blocks = {FLOOR: of_flower(flower.FedAvg(), updates), IN_BLOCKS: of_rule(None, updates, own)}
    blocks |= {name: of_rule(make("aggregate", name), updates, own) for name in args.rules}
    blocks |= {f"Flower's {name}": of_flower(known[name](), updates) for name in args.flower}
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in blocks}
    for repeat in range(args.repeats):
        for name, block in blocks.items():
            found[name].append(block())
            note(f"{name}: {found[name][-1][0]:.4g} s")
        note(f"repeat {repeat + 1} of {args.repeats}")
    medians = {name: statistics.median(seconds for seconds, _ in values) for name, values in found.items()}
    for name, values in found.items():
        row = {
            **spread([seconds for seconds, _ in values], "seconds"),
            "times Flower's averaging": medians[name] / medians[FLOOR],
            "times averaging in blocks": medians[name] / medians[IN_BLOCKS],
            "GB held": max(held for _, held in values) / 1e9,
        }
        records.add(table, name, row, seeds=[0], n=args.repeats, seconds=time.monotonic() - begun)
    records.show()


if __name__ == "__main__":
    main()
