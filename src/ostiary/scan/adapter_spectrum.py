"""Spectra of a LoRA adapter against those of other adapters: unusual or not, and never a verdict."""

from dataclasses import dataclass
from typing import ClassVar

from ostiary.core.card import Card, Needs
from ostiary.core.errors import NotMet
from ostiary.core.records import ModelEvidence
from ostiary.core.reference import MEASURE
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.models.adapter import Adapted
from ostiary.models.language import LanguageModel
from ostiary.scan.adapter_bank import AdapterBank, check_bank, measured, unlike

STRANGENESS, BANK = "strangeness", "adapters in the bank"


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterSpectrum:
    """Hold the spectrum of what an adapter adds to each layer against a `bank` of adapters of the same base.

    Source: our own; the features are those that arXiv 2602.15195 separates poisoned adapters by. Deviation: there is no
    classifier of adapters and no finding. An adapter that learnt anything new, a closing sentence say, is as far from a
    bank as a poisoned one; so what is far is called unusual, in a caution, and only what the merged model does is
    judged.
    """

    card: ClassVar[Card] = Card(
        id="text.scan.adapter-spectrum",
        summary="whether an adapter's weights are unlike those of a bank of adapters; unusual is no finding",
        paper="our own, after arXiv 2602.15195",
        needs=Needs(access="gradients", modality="text"),
        cost="a decomposition of rank r for each layer",
        deviations=("a bank of the user's own adapters in place of a trained classifier", "no finding is made of it"),
        blind_spots=(
            "what the adapter does: a new style, a new task and a backdoor look alike",
            "a poisoned adapter that was trained to look like others",
            "adapters of another rank, or on other layers, than those of the bank",
        ),
        marks=frozenset({"mechanism"}),
    )

    bank: AdapterBank | None = None

    def scan(self, model: LanguageModel, trusted: TextSet | None, /, *, run: Run) -> ModelEvidence:
        """Measure and compare; raises NotMet without an adapter or a bank, ConfigError as `unlike` and `check_bank`."""
        del trusted
        if not isinstance(model, Adapted):
            raise NotMet("needs an adapter and its base", hint="give the adapter, and its base with --base")
        if self.bank is None:
            raise NotMet("needs a bank of adapters", hint="make one with `ostiary calibrate`, give it by --calibration")
        check_bank(self.bank, model.base_digest)
        found = unlike(measured(model.adapter), self.bank)
        if found.unusual:
            run.caution(
                "OS931",
                f"the weights of '{model.adapter.name}' are unusual, most in '{found.layer}': "
                f"{round(found.p * (found.others + 1)) - 1} of {found.others} adapters of the bank are as far from "
                "the others; whether that means anything only what it does can tell",
            )
        return ModelEvidence(
            score=found.distance,
            measures={STRANGENESS: found.distance, MEASURE: found.p, BANK: float(found.others)},
            per_class=(),
            examined=("adapter",),
        )
