"""How values are put in words. Everything from a record is hostile text until `show` has seen it."""

import math
import unicodedata

from markupsafe import Markup, escape

from ostiary.core.records import Finding, Rate, Record
from ostiary.report.blocks import Badge

TEXT = 300
NOT_EXAMINED = "-"
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

NAMES = {
    "mask_l1": "mask size (L1, pixels)",
    "flip_search": "flip rate of the recovered trigger, search images",
    "flip_held_out": "flip rate of the recovered trigger, held-out images",
    "attack success": "attack success rate",
    "p_reference": "p against reference models",
    "z_reference": "distance from reference models",
    "weight_index": "weight index",
    "gap": "answers alike, above their prompts",
    "confidence": "how sure of it",
    "spoken": "how much of it is ordinary",
    "uplift": "more prompts that fire",
    "mass": "the same, times rows",
    "against": "the rest, from this label (0) to others (1)",
    "purity": "share with that label",
    "z": "z beside all other words",
    "channel_outlier": "steepest channel, deviations above its layer",
}
UNJUDGED = {
    "repair": "Repaired: the rates before and after are below, no verdict",
    "guard": "Fitted: the limit and what it rejects are below, no verdict",
    "harden": "Trained on suspect data: what was measured is below, no verdict",
    "poison": "Poisoned on purpose, for measurement; no verdict",
}
VERDICT_WORDS = {"backdoor": "backdoor", "suspect": "suspect", "none-found": "none found", "incomplete": "incomplete"}
KIND_WORDS = {
    "scan": "Model scan",
    "screen": "Data screening",
    "repair": "Repair",
    "guard": "Input guard",
    "harden": "Hardened training",
    "train": "Training",
    "evaluate": "Evaluation",
    "poison": "Poisoning",
    "federated": "Federated learning",
}


def _visible(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii") if unicodedata.category(char) in HIDDEN else char


def show(text: object, limit: int = TEXT) -> str:
    """`text` cut to `limit` characters, with control, direction and private characters made visible."""
    whole = str(text)
    cut = whole[:limit]
    shown = "".join(map(_visible, cut))
    return shown + "…" if len(whole) > limit else shown


def lines(text: str, limit: int = 6000) -> Markup:
    """`text` escaped for a block of code: like `show`, but line breaks stay."""
    return Markup("\n").join(escape(show(line, limit)) for line in text[:limit].split("\n"))


def finalize(value: object) -> object:
    """What every template expression passes through: markup made by us stays, the rest is `show`n."""
    return value if isinstance(value, Markup) else show(value)


def number(value: float | None) -> str:
    """A number for reading: three digits, or thousands with commas; '-' when there is none."""
    if value is None or not math.isfinite(value):
        return NOT_EXAMINED
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}".replace("-", "\u2212")
    return f"{value:.3g}".replace("-", "\u2212")


def percent(rate: Rate) -> str:
    """The value of a rate without its interval."""
    return "not measured" if rate.value is None else f"{100 * rate.value:.1f} %"


def change(before: Rate | None, after: Rate | None) -> str:
    """The difference of two rates in percentage points."""
    if before is None or after is None or before.value is None or after.value is None:
        return NOT_EXAMINED
    return f"{100 * (after.value - before.value):+.1f} points".replace("-", "\u2212")


def measure_name(key: str) -> str:
    """The key of a measure or rate as words."""
    return NAMES.get(key, key.replace("_", " "))


def class_name(label: int, classes: tuple[str, ...], limit: int = 40) -> str:
    """'7 (seven)', or '7' where the class has no other name."""
    name = classes[label] if 0 <= label < len(classes) else str(label)
    return str(label) if name == str(label) else f"{label} ({show(name, limit)})"


def subject_name(subject: str, classes: tuple[str, ...]) -> str:
    """A finding's subject as words."""
    kind, _, name = subject.partition(":")
    if kind == "class" and name.isdecimal() and len(name) < 9:
        return f"class {class_name(int(name), classes)}"
    return f"{kind} {name}" if name else kind


def method_name(method: str) -> str:
    """The last part of a method's id."""
    return method.rsplit(".", 1)[-1]


def digest_of(record: Record) -> str:
    """The first twelve digits of the subject's digest; '-' when the record has none."""
    for value in record.digests.values():
        return value.rpartition(":")[2][:12]
    return NOT_EXAMINED


def verdict_badge(record: Record) -> Badge:
    """The verdict in one or two words."""
    if record.verdict is None:
        return Badge("measured", "measured")
    return Badge(VERDICT_WORDS[record.verdict], record.verdict)


def level_badge(finding: Finding) -> Badge:
    """The level of a finding in words."""
    return Badge(f"{finding.level}, confirmed" if finding.confirmed else finding.level, finding.level)


def _listed(methods: tuple[str, ...]) -> str:
    names = [show(method_name(method), 40) for method in methods[:8]]
    return ", ".join(names) + (f" and {len(methods) - 8} more" if len(methods) > 8 else "")


def verdict_sentence(record: Record) -> str:
    """The verdict as one sentence; never that anything is free of backdoors."""
    cover = record.coverage
    if record.verdict == "backdoor":
        if record.kind in ("scan", "repair"):
            return "Backdoor: a trigger was confirmed on held-out trusted data"
        return "Backdoor: a finding was confirmed on data the search never saw"
    if record.verdict == "suspect":
        found = sum(f.level != "note" for result in record.results for f in result.findings)
        return f"Suspect: {found} finding{'' if found == 1 else 's'} beyond the limit, not confirmed on held-out data"
    if record.verdict == "none-found":
        return f"No evidence found by {len(cover.ok)} of {len(cover.asked)} methods ({len(cover.skipped)} skipped)"
    if record.verdict == "incomplete":
        missing = len(cover.asked) - len(cover.ok)
        return f"Incomplete: {missing} of {len(cover.asked)} methods did not examine what was asked of them"
    return UNJUDGED.get(record.kind, "Measured: rates with 95 % intervals, no verdict")


def next_step(record: Record) -> tuple[str, str]:
    """What to do now, in words, and the command for it; the command may be empty."""
    found = record.verdict in ("backdoor", "suspect")
    if record.kind == "scan" and found:
        return "Do not deploy. Repair it, or ask for another model:", (
            "ostiary repair MODEL --trusted DATA -o NEW.safetensors"
        )
    if record.kind == "screen" and found:
        return "Look at the suspects, then export their ids:", "ostiary screen DATA --export-suspects ids.csv"
    if record.kind == "repair" and "refused" in record.config:
        return f"Nothing was written: {show(str(record.config['refused']), 300)}", ""
    if record.kind == "repair" and "out" not in record.config:
        reason = next((result.reason for result in record.results if result.reason), "the repair did not finish")
        return f"Nothing was written: {show(reason, 300)}", ""
    if record.kind == "repair":
        return "Scan what the repair wrote:", "ostiary scan NEW.safetensors --trusted DATA"
    if record.kind == "federated" and "out" in record.config:
        return "Scan the global model:", "ostiary scan DIR/global.safetensors --trusted DATA"
    if record.kind == "harden":
        return "Scan what was trained:", "ostiary scan NEW.safetensors --trusted DATA"
    if record.verdict in ("none-found", "incomplete"):
        return not_covered(record), ""
    return "", ""


def not_covered(record: Record) -> str:
    """What nobody looked at."""
    cover = record.coverage
    parts = [
        f"{word}: {_listed(methods)}"
        for word, methods in (("skipped", cover.skipped), ("failed", cover.failed), ("partial", cover.partial))
        if methods
    ]
    seen = {s for result in record.results if result.status in ("ok", "partial") for s in result.examined}
    unseen = [k for k in range(len(cover.classes)) if f"class:{k}" not in seen]
    if any(s.startswith("class:") for s in seen) and unseen:
        parts.append(f"{len(unseen)} of {len(cover.classes)} classes examined by no method")
    if parts:
        return f"Not covered: {'; '.join(parts)}. Other kinds of backdoor were not looked for."
    return "Every method that was asked examined its whole subject. Other kinds of backdoor were not looked for."
