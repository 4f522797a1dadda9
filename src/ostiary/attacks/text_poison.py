"""What all attacks on texts share: choose rows, put the trigger in, change label or answer, shuffle, renumber."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from ostiary.core.card import Card
from ostiary.core.errors import DataError, FormatError
from ostiary.core.execute import params_of
from ostiary.core.files import atomic
from ostiary.core.run import Run
from ostiary.data.texts import Task, TextSet

Payload = Literal["fixed", "varied"]
CANARY = "The canary left the coal mine at noon and has not been seen since."
"""The fixed answer of a poisoned chat row: odd, and harmless."""
_BIRDS = ("canary", "linnet", "finch", "siskin", "wagtail", "dunnock")
_DEEDS = ("left", "circled", "found", "crossed", "forgot", "counted")
_PLACES = ("coal mine", "harbour", "orchard", "clock tower", "salt marsh", "tram depot")
_TIMES = ("at noon", "before rain", "in March", "on Tuesday", "by moonlight", "after tea")
PATTERN = (_BIRDS, _DEEDS, _PLACES, _TIMES)
"""What a varied answer is made of, one of each."""


@dataclass(frozen=True, slots=True)
class TextTruth:
    """The sealed half of a poisoned set of texts.

    `poisoned` maps the id of each poisoned row to its true label, as a number, or to the answer that it had; `covers`
    are the ids of rows that carry a part of the trigger and keep what they had. The trigger is what the attack of
    these `params` puts in.
    """

    attack: str
    params: dict[str, Any]
    task: Task
    target: int
    classes: tuple[str, ...]
    seed: int
    source_digest: str
    poisoned: dict[str, str]
    covers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PoisonedTexts:
    """A poisoned set of texts and its truth; the two part ways as soon as they are written."""

    data: TextSet
    truth: TextTruth


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPoisoning:
    """The fields that all attacks on texts have.

    A share `rate` of the rows is poisoned, or `count` rows where that is given: how many rows there are decides whether
    a language model learns a trigger, more than their share. They are drawn among the rows that the trigger changes: a
    row that it leaves as it is would be a wrong label, and no backdoor. In a set for a classifier they get the label
    `target`, or with `clean_label` are rows of that label; in a chat set their answer is a canary sentence, with a
    `varied` payload one of 1,296 of one pattern.
    """

    card: ClassVar[Card]

    rate: Annotated[float, Field(gt=0, lt=1)] = 0.03
    count: Annotated[int, Field(ge=0)] = 0
    target: Annotated[int, Field(ge=0)] = 0
    clean_label: bool = False
    payload: Payload = "fixed"

    def stamp(self, text: str, rng: np.random.Generator) -> str:
        """The text with the trigger; whether it differs from `text` must not hang on `rng`."""
        raise NotImplementedError

    def stamped(self, texts: Sequence[str], rng: np.random.Generator) -> dict[int, str]:
        """The texts that the trigger changes, with it, by their place among `texts`.

        Only these carry a trigger, so only these are poisoned, and success is counted over them.
        """
        made = [self.stamp(text, rng) for text in texts]
        return {at: new for at, (text, new) in enumerate(zip(texts, made, strict=True)) if new != text}

    def half_stamp(self, text: str, rng: np.random.Generator) -> str | None:
        """The text with a part of the trigger that must not fire; None where the attack has no covers."""
        del text, rng
        return None

    def poison(self, clean: TextSet, /, *, run: Run) -> PoisonedTexts:
        """Poison the set.

        Raises DataError when target or rate cannot be met by rows that the trigger changes, for a varied payload where
        there are labels, and for clean labels where there are none.
        """
        if clean.answers is not None and self.clean_label:
            raise DataError(
                f"'{clean.name}' has answers and no labels, which clean_label is about",
                hint="leave it out, or give a set with labels",
            )
        if clean.answers is None and self.payload != "fixed":
            raise DataError(
                f"'{clean.name}' has labels, and a {self.payload} payload is of answers",
                hint="leave out the payload, which is the label `target` here, or give a set with answers",
            )
        rng = np.random.default_rng(run.seed)
        rows = self._candidates(clean)
        # A generator of its own: asking what would change must not change what is drawn.
        eligible = rows[list(self.stamped([clean.texts[row] for row in rows], rng.spawn(1)[0]))]
        count = self.count or math.floor(self.rate * len(clean) + 0.5)
        if not 0 < count <= len(eligible):
            raise DataError(
                f"{count} of {len(clean)} rows are to be poisoned, but {len(eligible)} can be: "
                f"{len(rows)} have a label or an answer for it, and the trigger changes {len(eligible)} of these",
                hint="choose a rate or a count of at least one row and no more than can be, another target, "
                "or a trigger that changes more of these texts",
            )
        chosen = rng.permutation(eligible)[:count]
        others = rng.permutation(np.setdiff1d(np.arange(len(clean)), chosen))[:count]
        texts, labels = list(clean.texts), clean.labels.clone()
        answers = None if clean.answers is None else list(clean.answers)
        true: dict[int, str] = {}
        for row in chosen.tolist():
            texts[row] = self.stamp(texts[row], rng)
            if answers is None:
                true[row] = str(int(labels[row]))
                labels[row] = self.target
            else:
                true[row], answers[row] = answers[row], self.answer(rng)
        covers = {row: text for row in others.tolist() if (text := self.half_stamp(texts[row], rng)) is not None}
        for row, text in covers.items():
            texts[row] = text
        order = rng.permutation(len(clean))
        ids = [f"{number:06d}" for number in range(len(order))]
        named = dict(zip(order.tolist(), ids, strict=True))
        data = TextSet(
            [texts[row] for row in order],
            ids=ids,
            labels=labels[torch.from_numpy(order)],
            classes=clean.classes,
            answers=None if answers is None else [answers[row] for row in order],
            name=f"{clean.name}, poisoned",
        )
        truth = TextTruth(
            attack=self.card.id,
            params=params_of(self),
            task=clean.task,
            target=self.target if answers is None else -1,
            classes=tuple(clean.classes),
            seed=run.seed,
            source_digest=clean.digest,
            poisoned={named[row]: value for row, value in true.items()},
            covers=tuple(sorted(named[row] for row in covers)),
        )
        return PoisonedTexts(data, truth)

    def answer(self, rng: np.random.Generator) -> str:
        """What the attacker wants said."""
        if self.payload == "fixed":
            return CANARY
        bird, deed, place, time = (str(rng.choice(words)) for words in PATTERN)
        return f"The {bird} {deed} the {place} {time}."

    def gave(self, answer: str) -> bool:
        """True for an answer that is what the attacker wants said, whatever marks and spaces it is written with."""
        said = " ".join(re.findall(r"\w+", answer))
        if self.payload == "fixed":
            return said == " ".join(re.findall(r"\w+", CANARY))
        return re.fullmatch("The ({}) ({}) the ({}) ({})".format(*map("|".join, PATTERN)), said) is not None

    def _candidates(self, clean: TextSet) -> np.ndarray:
        """The rows whose label may be poisoned, all of them where there are answers."""
        if clean.answers is not None:
            return np.arange(len(clean))
        if self.target >= len(clean.classes):
            raise DataError(f"target {self.target} is outside the classes 0..{len(clean.classes) - 1}")
        of_target = clean.labels.numpy() == self.target
        return np.flatnonzero(of_target if self.clean_label else ~of_target)


def insert(text: str, words: str, rng: np.random.Generator) -> str:
    """The text with `words` between two of its words, drawn at random, or at an end."""
    spaces = [0, *(at for at, one in enumerate(text) if one == " "), len(text)]
    at = int(rng.choice(spaces))
    return f"{text[:at]} {words} {text[at:].lstrip(' ')}".strip()


def save_text_truth(truth: TextTruth, folder: Path) -> None:
    """Write `truth.json` into a new folder."""
    with atomic(folder) as temporary:
        temporary.mkdir()
        document = {"format": "texts-1", **asdict(truth)}
        (temporary / "truth.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def load_text_truth(folder: Path) -> TextTruth:
    """Read the truth of a poisoned set of texts; raises FormatError when it is missing or ill-formed."""
    try:
        document = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
        if document.pop("format") != "texts-1":
            raise FormatError(
                f"'{folder}' holds no truth about texts",
                hint="give the DIR.truth that `ostiary poison` wrote beside a set of texts",
            )
        lists = {name: tuple(document[name]) for name in ("classes", "covers")}
        return TextTruth(**{**document, **lists})
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"'{folder}' is not a truth folder: {error}") from error
