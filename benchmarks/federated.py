"""Rules of federated learning against attacking clients, on the digits: attack success, accuracy, who was refused.

    python -m benchmarks.federated
    python -m benchmarks.federated --rules mean guard --attacks none pgd

20 clients, of whom 4 attack in rounds 11 to 30 of 50; a network of 4,810 weights; shards alike, or by Dirichlet 0.5 and
0.1. Attackers train 6 epochs with half of their samples poisoned, honest clients 2. Success and accuracy are counted on
350 samples that nobody trained on, over the seeds together; `after` is the attack's success 20 rounds after it ended.
Refused clients are counted over rounds 11 to 30. The server has 100 trusted samples, which `guard` and `fltrust` use;
`guard without trusted samples` does not. No rule is told how many clients attack.

Two cores: about 3 s a run, a minute and a half for each rule and seed.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.common import Records, parse, parser

from ostiary.core.catalog import make, methods
from ostiary.core.records import Rate
from ostiary.federated.attacks.badnets import BadNets
from ostiary.federated.attacks.dba import DBA
from ostiary.federated.attacks.neurotoxin import Neurotoxin
from ostiary.federated.attacks.pgd import PGD
from ostiary.federated.attacks.scaling import ModelReplacement
from ostiary.federated.attacks.study import Federation, Outcome, Threat, run_study

ROUNDS, FIRST, LAST = 50, 11, 30
SHARDS = {"alike": None, "Dirichlet 0.5": 0.5, "Dirichlet 0.1": 0.1}
ATTACKS = {
    "none": None,
    "badnets": Threat(data=BadNets()),
    "scaled": Threat(data=BadNets(), updates=(ModelReplacement(),)),
    "pgd": Threat(data=BadNets(), updates=(PGD(),)),
    "dba": Threat(data=DBA()),
    "neurotoxin, pgd": Threat(data=BadNets(), updates=(Neurotoxin(), PGD())),
}
RULES = {
    "mean": partial(make, "aggregate", "norm-clip", {"bound": 1e9}),
    "guard": partial(make, "aggregate", "guard"),
    "guard without trusted samples": partial(make, "aggregate", "guard", {"trusted": 0.0}),
    # 500 samples of noise in place of 20,000, as the figures are the same and a run takes minutes otherwise.
    "deepsight": partial(make, "aggregate", "deepsight", {"samples": 500}),
    **{
        name: partial(make, "aggregate", name)
        for name in (key.removeprefix("aggregate.") for key in methods("aggregate"))
        if name not in ("guard", "deepsight")
    },
}


def joined(rates: Sequence[Rate]) -> Rate:
    """The rate over all of them."""
    return Rate(k=sum(rate.k for rate in rates), n=sum(rate.n for rate in rates))


def figures(runs: list[list[Outcome]], attacked: bool) -> dict[str, Any]:
    """What the runs of all seeds came to."""
    during = [outcome for run in runs for outcome in run[FIRST - 1 : LAST]]
    found: dict[str, Any] = {"accuracy": joined([run[LAST - 1].accuracy for run in runs])}
    if attacked:
        found |= {
            "attack success": joined([run[LAST - 1].success for run in runs if run[LAST - 1].success is not None]),
            "highest in a round": max(run.success.value or 0.0 for run in during if run.success is not None),
            "after": joined([run[-1].success for run in runs if run[-1].success is not None]),
            "attackers refused": joined([outcome.attackers_refused for outcome in during]),
            "honest refused": joined([outcome.honest_refused for outcome in during]),
        }
    else:
        # Nobody attacks: those who would are honest, too.
        found["honest refused"] = joined([rate for o in during for rate in (o.honest_refused, o.attackers_refused)])
    return found


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES), metavar="RULE")
    made.add_argument("--attacks", nargs="+", default=list(ATTACKS), choices=list(ATTACKS), metavar="ATTACK")
    made.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parse(made)
    about = (
        "The digits among 20 clients, 4 of whom attack in rounds 11 to 30. Accuracy and attack success after round 30, "
        "`after` 20 rounds later; refused clients over rounds 11 to 30. No rule is told how many attack. The guard was "
        "developed on seeds from 100 on."
    )
    records = Records("federated", "Federated learning: rules against attacking clients", about, args)
    for rule in args.rules:
        for shards, alpha in SHARDS.items():
            for attack in args.attacks:
                if records.has(f"digits, {shards}", f"{rule}: {attack}"):
                    continue
                begun = time.monotonic()
                runs = [
                    list(run_study(Federation(seed=seed, alpha=alpha), RULES[rule](), ATTACKS[attack], rounds=ROUNDS))
                    for seed in args.seeds
                ]
                records.add(
                    f"digits, {shards}",
                    f"{rule}: {attack}",
                    figures(runs, ATTACKS[attack] is not None),
                    seeds=args.seeds,
                    n=f"{len(runs)} runs of {ROUNDS} rounds",
                    seconds=time.monotonic() - begun,
                )
    records.show()


if __name__ == "__main__":
    main()
