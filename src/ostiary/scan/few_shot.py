"""CLIBE: a small change of attention weights, fitted on a few texts, and what it does to others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from ostiary.core.card import Card, Needs
from ostiary.core.errors import NotMet
from ostiary.core.records import ClassScore, ModelEvidence, Rate
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.models.text_classifier import TextClassifier

ATTENTION = ("attention", "attn")
"""What the names of the layers of an attention hold, in models of transformers."""
LEAST = 8
"""Held-out texts that there must be."""
Weights = Mapping[str, Tensor]
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Fitted:
    """One change of weights: its norm relative to theirs, and what it does to the held-out texts.

    `fired` says which of them get the label. `carried` is how far the mean margin of the label rises on them, as a
    share of its rise on the texts fitted on; `spread` is the standard deviation of their margins.
    """

    norm: float
    fired: Tensor
    carried: float
    spread: float


@dataclass(frozen=True, kw_only=True, slots=True)
class FewShotPerturbation:
    """How many texts go to a label under a small change of attention weights that was fitted on a few others.

    Source: Zeng et al. 2025, CLIBE (NDSS), abstract: in the attention layers of the model a small change is optimised
    under which a few reference texts get a label; that of a backdoored label generalises better to other texts, since
    it wakes what the model learnt of the trigger.

    Here `shots` trusted texts of other classes, that the model gets right, are drawn `draws` times for every label.
    Adam fits a change of the weights of all attention layers to them in `steps` steps of `lr` times the weights' root
    mean square, so that the change stays below `steps * lr` of the weights. It is tried on up to `held` others of these
    texts. The weights of the model are never written to: what is changed is given to a call in their place.

    The score of a label is the share of held-out texts that get it, less the mean of the other labels' shares. It
    ranks labels, and accuses none. Raises NotMet without trusted texts, where the model has no layer of attention,
    or gets too few texts of the other classes right.
    """

    card: ClassVar[Card] = Card(
        id="text.scan.few-shot-perturbation",
        summary="labels to which a small change of attention weights, fitted on few texts, turns others; ranks alone",
        paper="Zeng et al. 2025, NDSS (CLIBE), arXiv 2409.01193",
        official_code="https://github.com/Raytsang123/CLIBE",
        needs=Needs(access="gradients", modality="text", trusted_per_class=20),
        cost="per class 24 steps on 8 texts, and some 400 texts forward",
        deviations=(
            "from the abstract: all attention layers, a few steps in place of a bound on the loss, trusted texts",
            "judged by the share of held-out texts that get the label",
            "it ranks and accuses nobody, where the paper tells models apart",
        ),
        blind_spots=(
            "small classifiers: the target's label of 27 attacked ones ranks above others at AUROC 0.73 alone",
            "in a small classifier one change of attention moves every text, attacked or not: it carries over anyway",
        ),
        marks=frozenset({"mechanism"}),
    )

    draws: Annotated[int, Field(ge=1)] = 3
    shots: Annotated[int, Field(ge=2)] = 8
    held: Annotated[int, Field(ge=LEAST)] = 64
    steps: Annotated[int, Field(ge=1)] = 8
    lr: Annotated[float, Field(gt=0)] = 0.02

    def scan(self, model: TextClassifier, trusted: TextSet | None, /, *, run: Run) -> ModelEvidence:
        """Fit and try the changes for every class, and hold each against those of the others."""
        if trusted is None:
            raise NotMet("needs trusted texts")
        weights = attention_weights(model)
        if not weights:
            raise NotMet(f"'{model.name}' has no weights of attention to change")
        right = model.predict(trusted.texts).argmax(dim=1).cpu() == trusted.labels
        found: dict[int, list[Fitted]] = {}
        for label in range(len(model.classes)):
            run.progress(label, len(model.classes), self.card.name)
            chosen = torch.nonzero(right & (trusted.labels != label)).squeeze(1).tolist()
            if len(chosen) < (least := self.shots + LEAST):
                raise NotMet(f"needs {least} trusted texts of the other classes that the model gets right")
            # By their ids, so that the order of the trusted texts does not decide which are drawn.
            rows = model.rows([trusted.texts[at] for at in sorted(chosen, key=lambda at: trusted.ids[at])])
            tried = []
            for draw in range(self.draws):
                if run.out_of_time:
                    return self._evidence(found)
                tried.append(self._drawn(model, weights, rows, label, draw, run))
            found[label] = tried
        return self._evidence(found)

    def _drawn(
        self, model: TextClassifier, weights: Weights, rows: Sequence[list[int]], label: int, draw: int, run: Run
    ) -> Fitted:
        """One draw of texts: those that the change is fitted on, and those that it is tried on."""
        order = np.random.default_rng([run.seed, label, draw]).permutation(len(rows))[: self.shots + self.held]
        few, others = (model.padded([rows[at] for at in part]) for part in np.split(order, [self.shots]))
        change = {name: torch.zeros_like(weight).requires_grad_() for name, weight in weights.items()}
        size = _norm(weights)
        rate = self.lr * size / sum(weight.numel() for weight in weights.values()) ** 0.5
        optimizer = torch.optim.Adam(change.values(), lr=rate)
        target = torch.full((self.shots,), label, device=model.device)
        for _ in range(self.steps):
            loss = cross_entropy(_changed(model, weights, change, few), target)
            grads = torch.autograd.grad(loss, list(change.values()))
            for value, grad in zip(change.values(), grads, strict=True):
                value.grad = grad
            optimizer.step()
        with torch.no_grad():
            none = {name: torch.zeros_like(weight) for name, weight in weights.items()}
            before, after = (
                [_margins(_changed(model, weights, one, batch), label) for batch in (few, others)]
                for one in (none, change)
            )
        risen = [float((new - old).mean()) for old, new in zip(before, after, strict=True)]
        carried = risen[1] / risen[0] if risen[0] > 0 else 0.0
        return Fitted(_norm(change) / size, after[1] > 0, carried, float(after[1].std()))

    def _evidence(self, found: Mapping[int, Sequence[Fitted]]) -> ModelEvidence:
        shares = {
            label: float(torch.cat([one.fired for one in tried]).float().mean()) for label, tried in found.items()
        }
        rows = []
        for label, tried in found.items():
            rest = [share for other, share in shares.items() if other != label]
            fired = torch.cat([one.fired for one in tried])
            measures = {
                "carried": float(np.mean([one.carried for one in tried])),
                "spread": float(np.mean([one.spread for one in tried])),
                "norm": float(np.mean([one.norm for one in tried])),
            }
            rates = {"share": Rate(k=int(fired.sum()), n=len(fired))}
            # Out of time after one label there is nothing to hold it against.
            score = shares[label] - sum(rest) / len(rest) if rest else None
            rows.append(ClassScore(label=label, score=score, measures=measures, rates=rates))
        tries = sum(map(len, found.values()))
        return ModelEvidence(
            score=max((row.score for row in rows if row.score is not None), default=None),
            per_class=tuple(rows),
            examined=tuple(f"class:{row.label}" for row in rows),
            passes=tries * (self.steps * self.shots + 2 * (self.shots + self.held)),
        )


def attention_weights(model: TextClassifier) -> dict[str, Tensor]:
    """The matrices of the layers of attention by their parameters' names, without gradients."""
    named = model.module.named_parameters()
    return {
        key: one.detach() for key, one in named if one.dim() == 2 and any(part in key.lower() for part in ATTENTION)
    }


def _norm(values: Weights) -> float:
    """The norm of all of them together."""
    return float(torch.stack([value.detach().norm() for value in values.values()]).norm())


def _changed(model: TextClassifier, weights: Weights, change: Weights, batch: Batch) -> Tensor:
    """Logits [n, k] of padded rows under changed weights."""
    given = {name: weight + change[name] for name, weight in weights.items()}
    ids, mask = batch
    out = functional_call(model.module, given, kwargs={"input_ids": ids, "attention_mask": mask.long()})
    logits: Tensor = out.logits
    return logits


def _margins(logits: Tensor, label: int) -> Tensor:
    """How far the label's logit is above the highest other, [n]."""
    rest = logits.clone()
    rest[:, label] = -torch.inf
    return logits[:, label] - rest.max(dim=1).values
