"""Rules of federated learning against attacking clients: attack success, accuracy, who was refused.

    python -m benchmarks.federated
    python -m benchmarks.federated --rules mean guard --attacks none pgd
    python -m benchmarks.federated --task mnist --rules mean guard --seeds 0 1

20 clients, of whom 4 attack; shards alike, or by Dirichlet 0.5 and 0.1. Attackers train 6 epochs with half of their
samples poisoned, honest clients 2. `digits`: a network of 4,810 weights, 50 rounds, attacked in 11 to 30. `mnist`:
2,000 samples of MNIST, a convolutional network of 25,000 weights, 30 rounds, attacked in 6 to 20.

Success and accuracy are counted on samples that nobody trained on (350; 900 of MNIST), over the seeds together, after
the attack's last round; `at the end` is the attack's success 20 (10) rounds later, and its lifespan the rounds after
its last in which it stayed at 50 % or above, in the mean. Refused clients are counted over the attacked rounds. The
server has 100 trusted samples, on which `guard` trains with two stamped copies of each and `fltrust`, as published,
without any; `guard without stamps` and `fltrust with stamps` have it the other way about, `guard without trusted
samples` has nothing. No rule is told how many clients attack.

Two cores: about 3 s a run of the digits, a minute and a half for each rule and seed; 2 to 3 minutes a run of MNIST.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from typing import Any

from benchmarks.common import Records, data_root, parse, parser

from ostiary.bench.federation import samples_of
from ostiary.bench.federation_settings import Settings
from ostiary.core.catalog import make, methods
from ostiary.core.records import Rate
from ostiary.federated.attacks.badnets import BadNets
from ostiary.federated.attacks.dba import DBA
from ostiary.federated.attacks.neurotoxin import Neurotoxin
from ostiary.federated.attacks.pgd import PGD
from ostiary.federated.attacks.scaling import ModelReplacement
from ostiary.federated.attacks.study import Federation, Outcome, Samples, Threat, lifespan, run_study
from ostiary.federated.zoo_network import ZooNetwork

SHARDS = {"alike": None, "Dirichlet 0.5": 0.5, "Dirichlet 0.1": 0.1}


@dataclass(frozen=True, slots=True)
class Task:
    """What clients learn, for how many rounds, and in which of them they are attacked by which stamps."""

    title: str
    rounds: int
    first: int
    last: int
    square: BadNets
    bars: DBA
    make: Callable[[int, float | None], Federation]

    def threats(self) -> dict[str, Threat | None]:
        """The attacks by name."""
        attack = partial(Threat, first=self.first, last=self.last)
        return {
            "none": None,
            "badnets": attack(data=self.square),
            "scaled": attack(data=self.square, updates=(ModelReplacement(),)),
            "pgd": attack(data=self.square, updates=(PGD(),)),
            "dba": attack(data=self.bars),
            "neurotoxin, pgd": attack(data=self.square, updates=(Neurotoxin(), PGD())),
        }


@cache
def mnist() -> tuple[Any, Samples]:
    """2,000 samples to share out and 1,000 kept back."""
    settings = Settings(data="mnist", samples=2000, test=1000)
    return samples_of(settings, str(data_root("mnist") / "mnist" / "mnist.npz"), 0)


def mnist_federation(seed: int, alpha: float | None) -> Federation:
    """MNIST among 20 clients who train a convolutional network."""
    data, samples = mnist()
    network = ZooNetwork("small-cnn-gn", len(data.classes), data.shape, 8)
    return Federation(seed=seed, alpha=alpha, samples=samples, network=network)


TASKS = {
    "digits": Task("digits", 50, 11, 30, BadNets(), DBA(), lambda seed, alpha: Federation(seed=seed, alpha=alpha)),
    "mnist": Task("MNIST", 30, 6, 20, BadNets(size=4), DBA(width=5, gap=2), mnist_federation),
}
ATTACKS = tuple(TASKS["digits"].threats())
RULES = {
    "mean": partial(make, "aggregate", "norm-clip", {"bound": 1e9}),
    "guard": partial(make, "aggregate", "guard"),
    "guard without stamps": partial(make, "aggregate", "guard"),
    "fltrust with stamps": partial(make, "aggregate", "fltrust"),
    "guard without trusted samples": partial(make, "aggregate", "guard", {"trusted": 0.0}),
    # 500 samples of noise in place of 20,000, as the figures are the same and a run takes minutes otherwise.
    "deepsight": partial(make, "aggregate", "deepsight", {"samples": 500}),
    **{
        name: partial(make, "aggregate", name)
        for name in (key.removeprefix("aggregate.") for key in methods("aggregate"))
        if name not in ("guard", "deepsight", "flower")
    },
    # Flower's own, told how many attack: four, and two more or fewer. Bulyan takes no more than four of twenty.
    **{
        f"Flower's {name}, f = {f}": partial(make, "aggregate", "flower", {"strategy": name, "declared": f})
        for name in ("krum", "multi-krum", "bulyan", "trimmed-mean")
        for f in (2, 4, 6)
        if (name, f) != ("bulyan", 6)
    },
    "Flower's median": partial(make, "aggregate", "flower", {"strategy": "median"}),
}


WITHOUT_STAMPS = ("fltrust", "guard without stamps")
"""Those whose server trains on its samples as they are."""


def figures(runs: list[list[Outcome]], task: Task, attacked: bool) -> dict[str, Any]:
    """What the runs of all seeds came to."""
    during = [outcome for run in runs for outcome in run[task.first - 1 : task.last]]
    ends = [run[task.last - 1] for run in runs]
    found: dict[str, Any] = {"accuracy": Rate.joined([one.accuracy for one in ends])}
    if attacked:
        found |= {
            "attack success": Rate.joined([one.success for one in ends if one.success is not None]),
            "highest in a round": max(run.success.value or 0.0 for run in during if run.success is not None),
            "at the end": Rate.joined([run[-1].success for run in runs if run[-1].success is not None]),
            "lifespan, rounds": sum(lifespan(run, task.last) for run in runs) / len(runs),
            "attackers refused": Rate.joined([outcome.attackers_refused for outcome in during]),
            "honest refused": Rate.joined([outcome.honest_refused for outcome in during]),
        }
    else:
        # Nobody attacks: those who would are honest, too.
        found["honest refused"] = Rate.joined(
            [rate for o in during for rate in (o.honest_refused, o.attackers_refused)]
        )
    return found


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--task", default="digits", choices=list(TASKS))
    made.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES), metavar="RULE")
    made.add_argument("--attacks", nargs="+", default=list(ATTACKS), choices=list(ATTACKS), metavar="ATTACK")
    made.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parse(made)
    about = (
        "20 clients, 4 of whom attack: the digits in rounds 11 to 30 of 50, MNIST (a convolutional network) in rounds "
        "6 to 20 of 30. Accuracy and attack success after the attack's last round, and at the end; refused clients "
        "over the attacked rounds. No rule is told how many attack. The guard was developed on the digits, seeds from "
        "100 on."
    )
    records = Records("federated", "Federated learning: rules against attacking clients", about, args)
    task = TASKS[args.task]
    for rule, shards, attack in product(args.rules, SHARDS, args.attacks):
        table, key = f"{task.title}, {shards}", f"{rule}: {attack}"
        if records.has(table, key):
            continue
        begun, threat = time.monotonic(), task.threats()[attack]
        runs = []
        for seed in args.seeds:
            federation = task.make(seed, SHARDS[shards])
            if rule in WITHOUT_STAMPS:
                federation = replace(federation, stamps=0)
            runs.append(list(run_study(federation, RULES[rule](), threat, rounds=task.rounds)))
        records.add(
            table,
            key,
            figures(runs, task, threat is not None),
            seeds=args.seeds,
            n=f"{len(runs)} runs of {task.rounds} rounds",
            seconds=time.monotonic() - begun,
        )
    records.show()


if __name__ == "__main__":
    main()
