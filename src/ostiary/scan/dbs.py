"""DBS: a phrase searched in the vocabulary as a whole, made of words, and tried on texts that the search never saw."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.errors import NotMet
from ostiary.core.records import ClassScore, ModelEvidence, PhraseTrigger, Rate
from ostiary.core.run import Run
from ostiary.data.split import stratified_rows
from ostiary.data.texts import TextSet
from ostiary.models.text_classifier import TextClassifier
from ostiary.models.tokens import table_of
from ostiary.screen.phrases import printable

HOT, COOLED, BOUND = 2.0, 5, 0.1
"""The highest temperature, the steps between two changes of it, and the loss that counts as success at first."""
ROLLBACKS, NOISE, SURE = 5, 10.0, 1e-3
HALVED = 50
WORTH = 0.1
"""How far the mean logarithm of the probability must rise for one more token to be worth it."""
SEARCHED = 0.4
"""The share of the trusted texts of the other classes that the search sees."""
LONGEST = 60
"""Tokens of a trusted text beyond which it is cut, and a third of those of three."""
SHOWN, EXCERPT = 3, 160
FEWEST = 10
"""Texts that a phrase could turn, with fewer of which its share is none."""
Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A phrase for one label: on trusted texts of other labels that were not searched on, alone and three in one.

    `stacked` is of the texts of three that do not get the label by themselves: how many get it with the phrase.
    """

    phrase: Tokens
    text: str
    label: int
    fires: Rate
    unprompted: Rate
    stacked: Rate
    shown: tuple[tuple[str, str], ...]
    passes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Dbs:
    """The phrase of at most `words` tokens that sends most texts of the other classes to each class.

    Source: Shen, Liu, Tao, Xu, Zhang, An, Ma, Zhang 2022, Constrained Optimization with Dynamic Bound-scaling for
    Effective NLP Backdoor Defense (ICML), sec. 4 and the published code: `slots` tokens in front of every text are
    mixtures of all tokens that show as text, softmax(logits / temperature), fitted by Adam for `epochs` steps, `lr`
    halved each 50. Once the loss is below its bound the temperature is halved every five steps, and raised again, with
    noise, where the loss does not hold; what has become discrete lowers the bound to half of its loss.

    Deviations: one search per target over the texts of all other classes, in front of the text, and no second model
    whose loss must not rise. The texts searched on are three trusted ones in one, since a few ordinary words that speak
    for a label turn most short texts. The score is no loss: the search only proposes tokens, beside those along
    the gradient at the place of one more word; the `words` best are put together on the searched texts, and counted on
    trusted texts kept apart, as text that is written out and read again.

    Raises NotMet where a class has too few trusted texts to search on and to keep apart.
    """

    card: ClassVar[Card] = Card(
        id="text.scan.dbs",
        summary="a phrase in front of a text that turns its label, whatever the rest of it says",
        paper="Shen et al. 2022, ICML, arXiv 2202.05749",
        official_code="https://github.com/PurduePAML/DBS",
        needs=Needs(access="gradients", modality="text", trusted_per_class=20),
        cost="per class some 200 steps on 16 texts, and about 3,000 texts forward",
        code="OS212",
        limits=(Limit(measure="stacked", low=0.92), Limit(measure="ahead", low=0.2)),
        deviations=(
            "one search per target, in front of the texts of all other classes, and no second model",
            "the texts searched on are three trusted ones in one",
            "judged by what the phrase does as text to texts kept apart, not by the loss of the search",
        ),
        confirms=False,  # two ordinary words that speak for a class turn most texts of a model that knows words
        families=("phrase",),
        blind_spots=(
            "a style or a syntax, which is no phrase",
            "triggers that do little more than two strong ordinary words: few poisoned rows, words that fire together",
            "triggers of more than `words` tokens of which a part does little; triggers that fire at one place only",
            "a backdoor of one class alone; several targets at once",
        ),
        marks=frozenset({"mechanism"}),
    )

    slots: Annotated[int, Field(ge=1, le=32)] = 10
    epochs: Annotated[int, Field(ge=1)] = 200
    lr: Annotated[float, Field(gt=0)] = 0.5
    batch: Annotated[int, Field(ge=4)] = 16
    words: Annotated[int, Field(ge=1, le=8)] = 2
    candidates: Annotated[int, Field(ge=4)] = 40
    beams: Annotated[int, Field(ge=1)] = 4

    def scan(self, model: TextClassifier, trusted: TextSet | None, /, *, run: Run) -> ModelEvidence:
        """Search a phrase for every class, and hold the strongest against those of the others."""
        if trusted is None:
            raise NotMet("needs trusted texts")
        found: list[Found] = []
        for label in range(len(model.classes)):
            run.progress(label, len(model.classes), self.card.name)
            if run.out_of_time:
                break
            found.append(self._towards(model, trusted, label, run))
        rows, triggers = [], []
        for one in found:
            rest = max((_share(other.stacked) for other in found if other is not one), default=0.0)
            stacked = _share(one.stacked)
            measures = {"stacked": stacked, "ahead": stacked - rest, "words": float(len(one.phrase))}
            rates = {"fires": one.fires, "unprompted": one.unprompted, "stacked": one.stacked}
            rows.append(ClassScore(label=one.label, score=stacked, measures=measures, rates=rates))
            triggers.append(
                PhraseTrigger(
                    phrase=one.text,
                    label=one.label,
                    source="inversion",
                    score=stacked,
                    measures=measures,
                    fires=one.fires,
                    unprompted=one.unprompted,
                    shown=one.shown,
                )
            )
        triggers.sort(key=lambda one: -one.score)
        return ModelEvidence(
            score=max((row.score for row in rows if row.score is not None), default=None),
            per_class=tuple(rows),
            phrases=tuple(triggers),
            examined=tuple(f"class:{row.label}" for row in rows),
            passes=sum(one.passes for one in found),
        )

    def _towards(self, model: TextClassifier, trusted: TextSet, label: int, run: Run) -> Found:
        others = trusted.subset(torch.nonzero(trusted.labels != label).squeeze(1))
        search, kept = map(others.subset, stratified_rows(others.labels, (SEARCHED, 1 - SEARCHED), run.seed))
        rng = np.random.default_rng([run.seed, label])
        texts = _stacked(model, search.texts, 2 * self.batch, rng)
        generator = run.generator(f"dbs-{label}")
        proposed = self._invert(model, texts[: self.batch], label, generator, run)
        phrase, tried = self._together(model, texts, label, proposed)
        text = printable(model.decode(phrase))
        # The phrase as text may be read as other tokens than those that were found.
        as_read = tuple(model.encode(f"{text} "))
        alone = [model.encode(one)[:LONGEST] for one in kept.texts]
        piled = _stacked(model, kept.texts, len(kept), rng)
        asked = ((as_read, alone), ((), alone), (as_read, piled), ((), piled))
        fires, unprompted, stacked, unasked = (_given(model, phrase_, rows, label) for phrase_, rows in asked)
        shown = tuple(
            (printable(f"{text} {one}")[:EXCERPT], model.classes[label if hit else int(true)])
            for one, hit, true in zip(kept.texts[:SHOWN], fires.tolist(), kept.labels.tolist(), strict=False)
        )
        # Texts that a model gives the label by itself are turned by no phrase.
        fired, before, piled_up = (
            Rate(k=int(hits.sum()), n=len(hits)) for hits in (fires, unprompted, stacked[~unasked])
        )
        passes = 2 * self.epochs * self.batch + tried + 4 * len(kept)
        return Found(phrase, text, label, fired, before, piled_up, shown, passes)

    def _invert(
        self, model: TextClassifier, texts: Sequence[Tokens], label: int, generator: torch.Generator, run: Run
    ) -> list[int]:
        """The tokens of the slots when they were last discrete, or are likeliest in the end, with the next ones."""
        words = torch.tensor(model.words, device=model.device)
        vectors = table_of(model.module)[words]
        rows = [model.row([*[int(words[0])] * self.slots, *text]) for text in texts]
        ids, mask = model.padded(rows)
        first, target = len(model.before), torch.full((len(rows),), label, device=model.device)
        noise = torch.rand(self.slots, len(words), generator=generator).to(model.device)
        logits = noise.clone().requires_grad_()
        optimizer = torch.optim.Adam([logits], lr=self.lr)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, HALVED, gamma=0.5)
        heat, bound, rolled, best = HOT, BOUND, 0, None
        for step in range(self.epochs):
            mixed = (logits / heat).softmax(dim=1)

            def put(given: Tensor, mixed: Tensor = mixed) -> Tensor:
                own = (mixed @ vectors)[None].expand(len(given), -1, -1)
                return torch.cat([given[:, :first], own, given[:, first + self.slots :]], dim=1)

            loss = cross_entropy(model.run_embedded(ids, mask, put), target)
            (logits.grad,) = torch.autograd.grad(loss, [logits])
            value, certain = float(loss.detach()), float(mixed.detach().max(dim=1).values.sum())
            if certain > self.slots - SURE and value <= bound:
                best, bound = mixed.detach().argmax(dim=1), value / 2
            if step % COOLED == 0 and (value < bound or heat < HOT):
                if value < bound:
                    heat /= 2
                else:
                    heat, rolled = min(HOT, 2 * heat), rolled + 1
                    shaken = torch.rand(logits.shape, generator=generator).to(model.device)
                    with torch.no_grad():
                        logits += NOISE * shaken
                if rolled >= ROLLBACKS:
                    bound, rolled = 2 * bound, 0
            optimizer.step()
            schedule.step()
            if run.out_of_time:
                break
        likely = logits.detach().topk(2, dim=1).indices.flatten()
        chosen = likely if best is None else torch.cat([best, likely])
        return list(dict.fromkeys(words[chosen].tolist()))

    def _together(
        self, model: TextClassifier, texts: Sequence[Tokens], label: int, proposed: Sequence[int]
    ) -> tuple[Tokens, int]:
        """The best phrase of up to `words` tokens on the searched texts, a shorter one where that does as well."""
        beams: list[Tokens] = [()]
        best: Tokens = ()
        height, tried = -torch.inf, 0
        for _ in range(self.words):
            tokens = [*proposed[: self.candidates], *_along(model, texts, beams[0], label, self.candidates)]
            grown = list(dict.fromkeys((*beam, token) for beam in beams for token in tokens))
            few = texts[: self.batch // 2]
            first = sorted(grown, key=lambda one: -_height(model, one, few, label))[: 4 * self.beams]
            scored = sorted(((_height(model, one, texts, label), one) for one in first), reverse=True)
            tried += len(grown) * len(few) + len(first) * len(texts)
            beams = [one for _, one in scored[: self.beams]]
            if scored[0][0] > height + WORTH:
                height, best = scored[0]
        return best, tried


def _share(rate: Rate) -> float:
    """A rate as a number; none of so few that it says nothing, as of a label that a model gives to everything."""
    return rate.value or 0.0 if rate.n >= FEWEST else 0.0


def _stacked(model: TextClassifier, texts: Sequence[str], count: int, rng: np.random.Generator) -> list[Tokens]:
    """Three texts in one, `count` times, each cut so that the whole can be read."""
    most = max(1, min(LONGEST, (model.limit - 32) // 3))
    rows = [model.encode(text)[:most] for text in texts]
    drawn = rng.integers(len(rows), size=(count, 3)).tolist()
    return [tuple(token for at in three for token in rows[at]) for three in drawn]


def _given(model: TextClassifier, phrase: Sequence[int], rows: Sequence[Sequence[int]], label: int) -> Tensor:
    """Which rows the model gives the label, with the phrase in front; [n] bool."""
    return model.predict_rows([model.row([*phrase, *row]) for row in rows]).argmax(dim=1).cpu() == label


def _height(model: TextClassifier, phrase: Sequence[int], rows: Sequence[Sequence[int]], label: int) -> float:
    """The mean logarithm of the label's probability behind the phrase."""
    found = model.predict_rows([model.row([*phrase, *row]) for row in rows])[:, label]
    return float(found.clamp(min=1e-9).log().mean())


def _along(model: TextClassifier, texts: Sequence[Tokens], phrase: Tokens, label: int, count: int) -> list[int]:
    """The tokens along the gradient of the label's probability at the place behind the phrase (Wallace et al. 2019)."""
    words = torch.tensor(model.words, device=model.device)
    table = table_of(model.module)
    ids, mask = model.padded([model.row([*phrase, int(words[0]), *text]) for text in texts])
    at = len(model.before) + len(phrase)
    # From the mean of all vectors, where every token is about as far.
    own = table[words].mean(dim=0).expand(len(ids), -1).clone().requires_grad_()

    def put(given: Tensor) -> Tensor:
        return torch.cat([given[:, :at], own[:, None], given[:, at + 1 :]], dim=1)

    gain = model.run_embedded(ids, mask, put).log_softmax(dim=1)[:, label].mean()
    (slope,) = torch.autograd.grad(gain, [own])
    found: list[int] = words[(table[words] @ slope.mean(dim=0)).topk(min(count, len(words))).indices].tolist()
    return found
