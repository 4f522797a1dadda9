"""Unlearning a recovered phrase: show it in trusted prompts until it changes no answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.errors import NotMet
from ostiary.core.protocols import Repaired
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.models.language import LanguageModel
from ostiary.repair.language_tune import LanguageTuning, Row, tune_language
from ostiary.training.language import token_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class PhraseUnlearning:
    """Fine-tune a copy on trusted rows, beside each of which stands one with a recovered phrase and the same answer.

    Source: Wang et al. 2019, Neural Cleanse (IEEE S&P), sec. VI-C, of whose unlearning this is the counterpart for
    texts. A phrase is put at the start, at the end or between two words, whatever the search did, since nobody knows
    where the attacker puts it; of several phrases each row gets one. `tolerance` is in nats a token.
    """

    card: ClassVar[Card] = Card(
        id="text.repair.phrase-unlearning",
        summary="tunes a language model on trusted rows, half of them with the recovered phrase and their own answer",
        paper="Wang et al. 2019, IEEE S&P, doi 10.1109/SP.2019.00031, sec. VI-C (for images)",
        needs=Needs(access="gradients", modality="text", trusted_per_class=20, trigger=True),
        cost="epochs over half of the trusted rows, each twice",
        deviations=(
            "prompts and a phrase in the place of images and a patch",
            "where to stop is chosen on held-out trusted rows without the phrase",
        ),
        blind_spots=("a recovered phrase that shares no word with the attacker's", "triggers the scan did not find"),
        marks=frozenset({"mechanism"}),
    )

    epochs: Annotated[int, Field(gt=0)] = 10
    lr: Annotated[float, Field(gt=0)] = 1e-3
    batch: Annotated[int, Field(gt=0)] = 16
    tolerance: Annotated[float, Field(ge=0)] = 0.03

    def repair(
        self, model: LanguageModel, trusted: TextSet, evidence: ModelEvidence | None, /, *, run: Run
    ) -> Repaired:
        """Give a copy for which the phrases of `evidence` lost their effect; raises NotMet without any."""
        phrases = [one.phrase for one in (evidence.phrases if evidence is not None else ()) if one.phrase.strip()]
        if not phrases:
            raise NotMet("needs a phrase recovered by a scan", hint="run a scan first and pass its evidence")
        copy = model.clone().to(run.device)
        generator = run.generator("phrases")

        def with_phrase(learn: TextSet) -> Sequence[Row]:
            spliced = [spliced_in(text, phrases, generator) for text in learn.texts]
            return token_rows(copy, TextSet(spliced, ids=learn.ids, answers=learn.answers, name=learn.name))

        tuning = LanguageTuning(epochs=self.epochs, lr=self.lr, batch=self.batch, tolerance=self.tolerance)
        chosen = tune_language(copy, trusted, tuning, run=run, label=self.card.name, beside=with_phrase)
        return Repaired(copy, {"phrases": ", ".join(map(repr, phrases)), **chosen})


def spliced_in(text: str, phrases: Sequence[str], generator: torch.Generator) -> str:
    """The text with one of the phrases at its start, at its end, or at one of the places between its words."""
    words = text.split(" ")
    which, kind = (int(torch.randint(n, (1,), generator=generator)) for n in (len(phrases), 3))
    at = (0, len(words), int(torch.randint(len(words) + 1, (1,), generator=generator)))[kind]
    return " ".join([*words[:at], phrases[which], *words[at:]]).strip()
