"""STRIP: lay trusted images over an input; a triggered one keeps its prediction."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ostiary.core.card import Card, Needs
from ostiary.core.errors import FormatError, ModelError
from ostiary.core.files import atomic
from ostiary.core.protocols import LabelledSet, Predictor
from ostiary.core.records import Rate
from ostiary.core.run import Run
from ostiary.core.types import Images, Scores
from ostiary.data import batch_size, split
from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import fused_inference

ARTIFACT = "strip"
IMAGES_AT_ONCE = 128
"""Blends in one pass; more are slower on a CPU, whose caches they leave."""
CUDA_AT_ONCE = 2048
SCORED_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """Mean entropy of the predictions of an input blended with trusted images; low entropy is suspicious.

    Source: Gao, Xu, Wang, Chen, Ranasinghe, Nepal 2019, STRIP (ACSAC; arXiv 1902.06531), sec. 4:
    N = 100 overlays added to the input, entropy in bits averaged over them, the limit at a wanted
    false rejection rate on trusted inputs. The score here is minus that entropy.
    """

    card: ClassVar[Card] = Card(
        id="guard.strip",
        summary="blends each input with trusted images and measures how much the prediction moves",
        paper="Gao et al. 2019, ACSAC, arXiv 1902.06531",
        official_code="https://github.com/garrisongys/STRIP",
        needs=Needs(access="probabilities", modality="images", trusted_per_class=4),
        cost="one forward pass per overlay and input",
        code="OS401",
        deviations=("the limit is the empirical quantile, not that of a fitted normal",),
        blind_spots=("source-specific and sample-specific triggers", "triggers that a blend destroys"),
        marks=frozenset({"mechanism"}),
    )

    overlays: Annotated[int, Field(gt=0)] = 100
    false_rejection: Annotated[float, Field(gt=0, lt=0.5)] = 0.01

    def fit(self, model: Predictor[Images], trusted: LabelledSet[Images], /, *, run: Run) -> "FittedStrip":
        """Set the limit on one third of the trusted images; the second third is laid over, the last only measured."""
        over, limit, check = split(trusted, (0.34, 0.33, 0.33), seed=run.seed)
        draw = torch.randint(len(over), (self.overlays,), generator=run.generator("overlays"))
        fitted = FittedStrip(over.take(draw), 0.0, model.digest)
        own = fitted.score_all(model, limit, run=run)
        # Linear interpolation would put the limit below the wanted quantile on a handful of samples.
        fitted.threshold = float(own.quantile(1 - self.false_rejection, interpolation="higher"))
        seen = fitted.score_all(model, check, run=run)
        run.artifact(f"{ARTIFACT}-trusted-scores", seen)
        fitted.false_rejection = Rate(k=int((seen > fitted.threshold).sum()), n=len(seen))
        return fitted


@dataclass(slots=True)
class FittedStrip:
    """A fitted STRIP: the overlays [m, c, h, w], the limit above which a score is flagged, the model it was fitted to.

    `false_rejection` is measured on trusted inputs that did not set the limit.
    """

    card: ClassVar[Card] = Strip.card

    overlays: Tensor
    threshold: float
    model_digest: str
    false_rejection: Rate | None = None

    def score(self, model: Predictor[Images], x: Images, /) -> Scores:
        """Minus the mean entropy in bits of each input's blends; in [-log2 k, 0]."""
        m, at_once = len(self.overlays), batch_size(x.shape[1:], CUDA_AT_ONCE if x.is_cuda else IMAGES_AT_ONCE)
        over = self.overlays.to(x)
        scores = []
        for part in x.split(max(1, at_once // m)):
            blends = (part[:, None] + over[None]).clamp_(0, 1).flatten(0, 1)
            p = torch.cat([model.predict(some).float() for some in blends.split(at_once)])
            entropy = -(p * p.clamp(min=1e-12).log2()).sum(1)
            # Blends are input-major: the m overlays of one input stand together.
            scores.append(-entropy.view(len(part), m).mean(1))
        return torch.cat(scores).cpu() if scores else torch.empty(0)

    def score_all(self, model: Predictor[Images], data: LabelledSet[Images], /, *, run: Run) -> Scores:
        """Scores of a whole set, streamed."""
        if isinstance(model, TorchClassifier):
            model = fused_inference(model, channels_last=True)
        found, done = [], 0
        for x, _ in data.batches(SCORED_AT_ONCE):
            found.append(self.score(model, x.to(run.device)))
            done += len(x)
            run.step(done, len(data), "strip")
        return torch.cat(found) if found else torch.empty(0)

    def save(self, path: Path, /) -> None:
        """Write one safetensors file; the limit and the model's digest are in its metadata."""
        metadata = {
            "ostiary.guard": "guard.strip",
            "format": "1",
            "threshold": repr(self.threshold),
            "model_digest": self.model_digest,
            "false_rejection": self.false_rejection.model_dump_json() if self.false_rejection else "null",
        }
        with atomic(path) as temporary:
            # Through bytes: safetensors has an error of its own for a full disk.
            temporary.write_bytes(save({"overlays": self.overlays.contiguous()}, metadata))

    @classmethod
    def load(cls, path: Path, /) -> "FittedStrip":
        """Read a saved guard; raises FormatError."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                overlays = file.get_tensor("overlays")
            if metadata.get("ostiary.guard") != "guard.strip":
                raise FormatError(f"'{path}' is no saved guard", hint="`ostiary guard fit` writes one")
            rate = json.loads(metadata["false_rejection"])
            return cls(
                overlays,
                float(metadata["threshold"]),
                metadata["model_digest"],
                Rate.model_validate(rate) if rate else None,
            )
        except FileNotFoundError as error:
            raise FormatError(f"no such file: '{path}'", hint="`ostiary guard fit` writes a guard") from error
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise FormatError(f"'{path}' is no saved guard: {error}", hint="`ostiary guard fit` writes one") from error

    def check_model(self, model: Predictor[Images]) -> None:
        """Raise ModelError when `model` is not the one this guard was fitted to."""
        if model.digest != self.model_digest:
            raise ModelError(
                f"the guard was fitted to model {self.model_digest[:12]}, this is {model.digest[:12]}",
                hint="fit the guard to this model with `ostiary guard fit`",
            )
