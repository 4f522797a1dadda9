"""Rows as the runner writes them, made by hand or, for a whole page, at random."""

import random
from typing import Any

from ostiary.core.records import Rate

Row = dict[str, Any]
MACHINE = {"cpu": "a CPU, 2 cores", "device": "cpu", "torch": "2.13.0", "ostiary": "0.1.0", "threads": 1}
ASR, RA = "attack success rate", "robust accuracy"


def rate(k: float, n: int = 100) -> dict[str, Any]:
    """A rate as a record holds it; `k` of `n`."""
    return Rate(k=round(k), n=n).model_dump(mode="json")


def row(defence: str | None = None, **fields: Any) -> Row:
    """One row; a defence is named by its method, `repair.x`, and every field can be given."""
    kind = fields.get("kind", "attack")
    name = {"attack": "badnets", "twin": "none", "benign": "mixup"}[kind]
    method = "" if kind == "twin" else f"{kind}.{name}"
    made: Row = {
        "grid": "made", "role": "report", "data": "digits", "model": "small", "arch": "small-cnn", "seed": 0,
        "kind": kind, "attack": name, "method": method,
        "rate": 0.1 if kind == "attack" else None, "params": None if kind == "twin" else {"target": 0},
        "defence": "none" if defence is None else defence.split(".")[-1], "defence_method": defence,
        "defence_params": None if defence is None else {"lr": 0.01}, "trusted": 0 if defence is None else 10,
        "source": "same", "created": "2026-01-01T00:00:00Z", "machine": MACHINE, "seconds": 9.0,
        "status": "ok", "reason": None, "rates": {}, "measures": {},
    }  # fmt: skip
    if defence is not None and fields.get("status", "ok") in ("ok", "partial", "skipped"):
        made |= {"method_seconds": 3.0, "peak_bytes": 2**28, "cautions": []}
    made |= fields
    if made["kind"] == "attack" and made["params"] is not None:
        made["params"] = {**made["params"], "rate": made["rate"]}
    made["rates"] = {name: one if isinstance(one, dict) else rate(one) for name, one in made["rates"].items()}
    model = [made[name] for name in ("role", "data", "model", "kind", "attack", "rate", "params", "seed")]
    made.setdefault("model_key", str(model))
    asked = [made[name] for name in ("defence", "defence_params", "trusted", "source")]
    made.setdefault("key", f"{made['model_key']} {asked}")
    return made


def before(acc: float, asr: float | None, *, twin: tuple[float, float] = (100, 1), **fields: Any) -> Row:
    """An attacked model as it stands, in percent of 100 test images."""
    rates: Row = {"accuracy": acc, "twin accuracy": twin[0]}
    if asr is not None:
        rates |= {ASR: asr, RA: 100 - asr, f"twin {ASR}": twin[1], f"twin re-activated {ASR}": 5}
    return row(rates=rates, **fields)


def repaired(acc: float, asr: float, **fields: Any) -> Row:
    """A repaired model."""
    rates = {"accuracy": acc, ASR: asr, RA: max(0, 90 - asr), f"re-activated {ASR}": 40}
    return row(fields.pop("defence", "repair.ft"), rates=rates, **fields)


ATTACKS = {
    "badnets": "attack.badnets", "blended": "attack.blended", "sig": "attack.sig", "ftrojan": "attack.ftrojan",
    "label-consistent": "attack.label-consistent", "issba": "attack.issba", "wanet": "attack.wanet",
    "bpp": "attack.bpp", "input-aware": "attack.input-aware", "trojannn": "attack.trojannn",
    "adaptive-blend": "attack.adaptive-blend",
}  # fmt: skip
DEFENCES = (
    "repair.fine-tuning", "repair.fine-pruning", "repair.trigger-unlearning", "scan.neural-cleanse",
    "screen.activation-clustering", "screen.spectral-signatures", "guard.strip",
)  # fmt: skip


def whole_store(seed: int = 0) -> list[Row]:
    """44 attacked models with twins and hard-benign ones, against 7 defences."""
    rng, rows = random.Random(seed), []  # noqa: S311 - no secret
    models = [
        {"kind": "attack", "attack": name, "method": method, "rate": rate, "seed": number}
        for name, method in ATTACKS.items()
        for rate in (0.01, 0.045 if method in ("attack.sig", "attack.label-consistent") else 0.1)
        for number in (0, 1)
    ]
    models += [{"kind": "twin", "seed": number} for number in (0, 1)]
    models += [
        {"kind": "benign", "attack": name, "method": f"benign.{name}", "seed": number}
        for name in ("mixup", "imbalanced", "shortcut", "watermark", "adversarial")
        for number in (0, 1)
    ]
    for model in models:
        attacked, strength = model["kind"] == "attack", rng.choice([rng.uniform(0.8, 1), rng.uniform(0.95, 1), 0.3])
        big = {"n": 6000}
        own = {"accuracy": rate(6000 * rng.uniform(0.9, 0.95), **big), "twin accuracy": rate(5640, **big)}
        if attacked:
            own |= {ASR: rate(6000 * strength, **big), f"twin {ASR}": rate(6000 * rng.uniform(0, 0.05), **big)}
            own |= {RA: rate(6000 * (1 - strength), **big), f"twin re-activated {ASR}": rate(900, **big)}
        rows.append(row(rates=own, **model))
        rows += [
            _defended(rng, defence, attacked, strength, model)
            for defence in DEFENCES
            if not (defence.startswith("screen") and model.get("attack") in ("input-aware", "trojannn"))
        ]
    return rows


def _defended(rng: random.Random, defence: str, attacked: bool, strength: float, model: Row) -> Row:
    verb, big, spent = defence.split(".", maxsplit=1)[0], {"n": 6000}, {"method_seconds": round(rng.uniform(2, 300), 3)}
    if rng.random() < 0.03:
        status, reason = rng.choice([("timeout", "not done after 3600 s"), ("memory", "MemoryError: out of memory")])
        return row(defence, status=status, reason=reason, **model)
    if verb == "repair":
        if defence.endswith("unlearning") and (not attacked or rng.random() < 0.3):
            reason = "needs a trigger recovered by a scan"
            return row(defence, status="skipped", reason=reason, **model)
        rates = {"accuracy": rate(6000 * rng.uniform(0.86, 0.95), **big)}
        if attacked:
            left = strength * rng.choice([rng.random(), rng.uniform(0, 0.1)])
            rates |= {ASR: rate(6000 * left, **big), RA: rate(6000 * (0.9 - left) * 0.9, **big) if left < 0.9 else 0}
            rates[f"re-activated {ASR}"] = rate(6000 * rng.random(), **big)
        return row(defence, rates=rates, **spent, **model)
    if verb == "scan":
        found = rng.random() < (0.7 if attacked else 0.1)
        measures = {"found": float(found), "confirmed": float(found), "score": rng.gauss(3 if found else 1, 0.8)}
        return row(defence, measures=measures | ({"target found": float(found)} if attacked else {}), **spent, **model)
    rates = {"false positive rate": rate(500 * rng.uniform(0, 0.1), 500)}
    measures = {"unscored": 0.0}
    if attacked:
        rates["true positive rate"] = rate(500 * rng.random(), 500)
        measures |= {"AUROC": rng.uniform(0.4, 1), "AP": rng.random()}
    return row(defence, rates=rates, measures=measures, **spent, **model)
