"""What the scanners share that search one form of trigger towards every class."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from ostiary.core.card import Card
from ostiary.core.protocols import LabelledSet
from ostiary.core.records import FormName, ModelEvidence
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.models.classifier import TorchClassifier
from ostiary.scan.aims import Aim
from ostiary.scan.forms import Form, Patch
from ostiary.scan.penalty import Schedule
from ostiary.scan.recover import Recovered, evidence, recover


@dataclass(frozen=True, kw_only=True, slots=True)
class FormSearch:
    """The search of Neural Cleanse (Wang et al. 2019, sec. IV) over the triggers of one form.

    Half of the trusted images drive the search, the other half only tell how often the final trigger
    flips unseen images. `steps` gradient steps of `batch` images; the penalty on the size starts at
    `initial_cost` and moves by `cost_factor` after `patience` rounds in a row. `drops` says after which rounds
    the search goes on for how many of the smallest triggers only (of those that work best, where triggers grow).
    """

    card: ClassVar[Card]
    form: ClassVar[FormName]
    searched: ClassVar[Form]
    drops: ClassVar[tuple[tuple[int, int], ...]] = ()

    steps: Annotated[int, Field(gt=0)] = 160
    batch: Annotated[int, Field(gt=0)] = 16
    batches_per_round: Annotated[int, Field(gt=0)] = 4
    lr: Annotated[float, Field(gt=0)] = 0.1
    initial_cost: Annotated[float, Field(gt=0)] = 0.1
    cost_factor: Annotated[float, Field(gt=1)] = 1.5
    patience: Annotated[int, Field(gt=0)] = 3
    success: Annotated[float, Field(gt=0, le=1)] = 0.95
    bf16: bool = True

    def scan(self, model: TorchClassifier, trusted: LabelledSet[Images], /, *, run: Run) -> ModelEvidence:
        """Examine every class of `model`; raises nothing of its own beyond what reading `trusted` raises."""
        name = self.card.name
        recovered = self.recovered(model, trusted, run)
        run.artifact(f"{name}-sample", recovered.sample)
        for number, part in enumerate(recovered.found.parts):
            run.artifact(f"{name}-part{number}", part)
        run.artifact(f"{name}-triggered", self.searched.apply(recovered.sample[None], recovered.found.parts)[:, 0])
        return evidence(recovered, self.form, name)

    def recovered(self, model: TorchClassifier, trusted: LabelledSet[Images], run: Run) -> Recovered:
        """The search itself."""
        schedule = Schedule(
            rounds=max(1, self.steps // self.batches_per_round),
            batches_per_round=self.batches_per_round,
            batch=self.batch,
            lr=self.lr,
            initial_cost=self.initial_cost,
            cost_factor=self.cost_factor,
            patience=self.patience,
            success=self.success,
            drops=self.drops,
        )
        name, aim = self.card.name, self.aim(len(model.classes))
        return recover(model, trusted, self.searched, schedule, bf16=self.bf16, run=run, label=name, aim=aim)

    def aim(self, classes: int) -> Aim | None:
        """Where images should go: None is to every class in turn."""
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchSearch(FormSearch):
    """A search over patches, with the constants of Neural Cleanse's authors."""

    form: ClassVar[FormName] = "patch"
    searched: ClassVar[Form] = Patch()
    # On develop models a target is among the three smallest after 20 rounds; after 8 it may still be the last of ten.
    drops: ClassVar[tuple[tuple[int, int], ...]] = ((8, 10), (20, 3))

    batch: Annotated[int, Field(gt=0)] = 32
    initial_cost: Annotated[float, Field(gt=0)] = 1e-3
    cost_factor: Annotated[float, Field(gt=1)] = 2.0
    patience: Annotated[int, Field(gt=0)] = 5
