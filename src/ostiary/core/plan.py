"""Which methods a run will use: by name, or by a preset."""

from collections.abc import Mapping, Sequence
from typing import Any

from ostiary.core.card import ACCESS_ORDER, Access
from ostiary.core.catalog import make, resolve
from ostiary.core.errors import ConfigError

Preset = dict[str, dict[str, Any]]

PRESETS: dict[str, dict[str, Preset]] = {
    "scan": {
        "quick": {
            "scan.trojan-signature": {},
            "scan.neural-cleanse": {"steps": 240, "batch": 16},
            "scan.frequency-trigger": {},
        },
        "standard": {
            "scan.trojan-signature": {},
            "scan.neural-cleanse": {"steps": 240, "batch": 16},
            "scan.frequency-trigger": {},
            "scan.shift-trigger": {},
            "scan.warp-trigger": {},
        },
        "thorough": {
            "scan.trojan-signature": {},
            "scan.neural-cleanse": {"steps": 1000},
            "scan.frequency-trigger": {"steps": 480},
            "scan.shift-trigger": {"steps": 480},
            "scan.warp-trigger": {"steps": 900},
            "scan.pair-trigger": {},
        },
    },
    "screen": {
        "quick": {"screen.fusion": {}},
        "standard": {
            "screen.fusion": {},
            "screen.scan": {},
        },
        "thorough": {
            "screen.fusion": {},
            "screen.scan": {},
            "screen.mahalanobis": {},
            "screen.confusion-training": {},
            "screen.spectral-signatures": {},
            "screen.spectre": {},
            "screen.activation-clustering": {"dimensions": 20},
        },
    },
}

TEXTS: dict[str, dict[str, dict[str, Preset]]] = {
    "scan": {
        "chat": {
            "quick": {"text.scan.bait": {}},
            "standard": {"text.scan.bait": {}, "text.scan.trigger-search": {}},
            "thorough": {
                "text.scan.bait": {},  # with its own pass it accuses ordinary models: docs/text.md
                "text.scan.trigger-search": {"width": 6, "aims": 3, "leaks": 500, "slot": 100},
            },
        },
        "chat from outside": {
            "quick": {"text.scan.phrase-trial": {"queries": 500}},
            "standard": {"text.scan.phrase-trial": {}},
            "thorough": {"text.scan.phrase-trial": {"leaks": 200, "queries": 10_000}},
        },
        "classify": {name: {"text.scan.dbs": {}} for name in PRESETS["scan"]},
    },
    "screen": {
        "chat": {
            name: {"text.screen.answer-coherence": {}, "text.screen.repeated-answers": {}} for name in PRESETS["screen"]
        },
        "classify": {name: {"text.screen.label-contradiction": {}} for name in PRESETS["screen"]},
    },
}
"""The presets for texts and models of texts, by what these are for."""

EXHAUSTIVE = "thorough"
"""The preset that goes on after a backdoor was confirmed; the others spend no more on what is decided."""

BLACK_BOX: dict[str, Preset] = {
    "quick": {"scan.b3d": {"steps": 200}},
    "standard": {"scan.b3d": {}},
    "thorough": {"scan.b3d": {"steps": 800, "samples": 64}},
}
"""The presets of `scan` for a model that gives answers and no gradients."""

ESTIMATES = {
    "scan": "10 classes of 32x32 on 2 cores: a small CNN takes about 15 s (quick), 25 s (standard), 2 min (thorough); "
    "a ResNet-18 of width 64, by its image passes, about 20 min, 40 min, 3 h",
    "black box": "10 classes: about 70,000 (quick), 110,000 (standard) or 550,000 queries (thorough) at most; "
    "a server that answers 2,000 a second takes 40 s, 1 min, 5 min",
    "screen": "one forward pass over the data, then seconds per class; thorough also trains a copy of the model for "
    "600 steps, about a minute for a small CNN",
    "language model": "half a million weights and 500 words on one core: about 10 s (quick), 40 s (standard); "
    "cost grows with the vocabulary times the cost of a token",
    "language model from outside": "130 to 490 answers (quick, standard) or 210 to 570 (thorough), as much as it "
    "gives away, and four for each phrase that is listed",
    "texts": "about a second for a thousand rows, on one thread",
}


def is_black_box(verb: str, access: Access) -> bool:
    """True when the presets of `verb` are those for a model without gradients."""
    return verb == "scan" and ACCESS_ORDER.index(access) < ACCESS_ORDER.index("gradients")


def parse_sets(items: Sequence[str]) -> dict[str, dict[str, str]]:
    """`ID.key=value` items by method; raises ConfigError for another form."""
    found: dict[str, dict[str, str]] = {}
    for item in items:
        left, equals, value = item.partition("=")
        method, dot, key = left.rpartition(".")
        if not (equals and dot and method and key):
            raise ConfigError(f"--set takes ID.key=value, not '{item}'", hint="for example neural-cleanse.steps=300")
        found.setdefault(method, {})[key] = value
    return found


def plan(
    verb: str,
    *,
    methods: Sequence[str] = (),
    preset: str = "standard",
    params: Mapping[str, Mapping[str, Any]] | None = None,
    access: Access = "gradients",
    task: str | None = None,
) -> list[Any]:
    """The methods to run, built with their parameters; methods asked for by name replace the preset.

    A preset of `scan` depends on `access`: without gradients it holds the methods that need none. Texts have presets of
    their own, by their `task`.

    Raises ConfigError for an unknown method, parameter or preset, and for parameters of a method
    that is not in the plan.
    """
    if preset not in PRESETS[verb]:
        raise ConfigError(f"no preset '{preset}'", hint=f"presets: {', '.join(PRESETS[verb])}")
    images = BLACK_BOX if is_black_box(verb, access) else PRESETS[verb]
    presets = images if task is None else TEXTS[verb][task]
    wanted = {resolve(verb, name): {} for name in methods} if methods else presets[preset]
    extra = {resolve(verb, name): dict(values) for name, values in (params or {}).items()}
    for name in extra:
        if name not in wanted:
            raise ConfigError(f"'{name}' has parameters but is not in the plan", hint=f"add --method {name}")
    return [make(verb, name, {**given, **extra.get(name, {})}) for name, given in wanted.items()]
