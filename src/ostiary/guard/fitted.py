"""What fitted guards share: the limit, scoring a whole set, and the file they are saved in."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ostiary.core.card import Card
from ostiary.core.catalog import method_class, methods
from ostiary.core.errors import FormatError, ModelError
from ostiary.core.files import atomic
from ostiary.core.protocols import LabelledSet
from ostiary.core.records import Rate
from ostiary.core.run import Run
from ostiary.core.types import Images, Scores
from ostiary.data import batch_size
from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import fused_inference
from ostiary.models.language import LanguageModel

Takes = Literal["images", "prompts", "texts with labels"]
"""What the models are given that a guard is for; prompts go to language models."""

HINT = "`ostiary guard fit` writes one"
MOST_JSON = 1 << 24
"""Characters of a field that is saved as JSON."""
MANY_REJECTED = 0.15
"""A guard that surely flags more of the trusted inputs than this is cautioned against."""
STEPS = 64
"""Tokens of an answer, where neither the caller nor the guard says how many."""
IMAGES_AT_ONCE = 128
"""Copies of inputs in one pass; more are slower on a CPU, whose caches they leave."""
CUDA_AT_ONCE = 2048


def at_once(x: Images) -> int:
    """How many images like those of `x` go through a model at once."""
    return batch_size(x.shape[1:], CUDA_AT_ONCE if x.is_cuda else IMAGES_AT_ONCE)


class Fitted:
    """Base of the fitted guards, which are dataclasses.

    `tensors` names the fields that are saved as tensors, `texts` those that are saved as JSON. `takes` says which
    models it is for, `fused` whether normalisation layers may be folded away. Scores above `threshold` are flagged;
    `false_rejection` is measured on trusted inputs that did not set it.
    """

    card: ClassVar[Card]
    takes: ClassVar[Takes] = "images"
    tensors: ClassVar[tuple[str, ...]]
    texts: ClassVar[tuple[str, ...]] = ()
    scored_at_once: ClassVar[int] = 128
    fused: ClassVar[bool] = True

    threshold: float
    model_digest: str
    false_rejection: Rate | None

    def score(self, model: Any, x: Any, /) -> Scores:
        """The score of each input, an image or a text; higher is more suspicious."""
        raise NotImplementedError

    def answer(self, model: Any, x: Any, /) -> tuple[Tensor, Scores]:
        """The model's probabilities [n, k] and the scores, in no more passes than both need."""
        return model.predict(x).cpu(), self.score(model, x)

    def tell(
        self, model: LanguageModel, prompts: Sequence[str], steps: int | None = None, /
    ) -> tuple[list[str], Scores]:
        """A language model's answers of at most `steps` tokens, and the scores, in no more passes than both need.

        Without `steps` the answers are as long as those that the guard was fitted to, else of 64 tokens.
        """
        return model.answers(prompts, steps or STEPS), self.score(model, prompts)

    def check_steps(self, steps: int | None, /) -> None:
        """Raise ConfigError where the guard watches answers and its limit does not hold for such of `steps` tokens."""

    def flagged(self, scores: Scores, /) -> Tensor:
        """Which scores [n] are beyond the limit; what could not be scored is flagged, too."""
        return ~(scores <= self.threshold)

    def score_all(self, model: Any, data: LabelledSet[Any], /, *, run: Run) -> Scores:
        """Scores of a whole set, streamed."""
        if self.fused and isinstance(model, TorchClassifier):
            model = fused_inference(model, channels_last=True)
        found, done = [], 0
        for x, _ in data.batches(self.scored_at_once):
            found.append(self.score(model, x.to(run.device) if isinstance(x, Tensor) else x))
            done += len(x)
            run.step(done, len(data), self.card.name)
        return torch.cat(found) if found else torch.empty(0)

    def set_limit(
        self,
        model: Any,
        limit: LabelledSet[Any],
        check: LabelledSet[Any],
        wanted: float,
        run: Run,
    ) -> None:
        """Put the threshold where it flags the share `wanted` of `limit`, and measure on `check` what it flags."""
        own = self.score_all(model, limit, run=run)
        # Linear interpolation would put the limit below the wanted quantile on a handful of samples.
        self.threshold = float(own.quantile(1 - wanted, interpolation="higher"))
        self.measure(model, check, run)

    def measure(self, model: Any, check: LabelledSet[Any], run: Run) -> None:
        """Count what the limit flags of trusted inputs."""
        seen = self.score_all(model, check, run=run)
        run.artifact(f"{self.card.name}-trusted-scores", seen)
        self.false_rejection = Rate(k=int(self.flagged(seen).sum()), n=len(seen))
        if (self.false_rejection.low or 0.0) > MANY_REJECTED:
            text = f"the guard flags {self.false_rejection} of trusted inputs: it is of little use for this model"
            run.caution("OS916", text)

    def save(self, path: Path, /) -> None:
        """Write one safetensors file; the limit and the model's digest are in its metadata."""
        metadata = {
            "ostiary.guard": self.card.id,
            "format": "1",
            "threshold": repr(self.threshold),
            "model_digest": self.model_digest,
            "false_rejection": self.false_rejection.model_dump_json() if self.false_rejection else "null",
            **{name: json.dumps(getattr(self, name)) for name in self.texts},
        }
        tensors = {name: getattr(self, name).contiguous() for name in self.tensors}
        with atomic(path) as temporary:
            # Through bytes: safetensors has an error of its own for a full disk.
            temporary.write_bytes(save(tensors, metadata))

    def check_model(self, model: Any) -> None:
        """Raise ModelError when `model` is not the one this guard was fitted to."""
        if model.digest != self.model_digest:
            raise ModelError(
                f"the guard was fitted to model {self.model_digest[:12]}, this is {model.digest[:12]}",
                hint="fit the guard to this model with `ostiary guard fit`",
            )


def load_guard(path: Path) -> Fitted:
    """Read a saved guard of any kind; raises FormatError."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            kind = metadata.get("ostiary.guard", "")
            if kind not in methods("guard"):
                raise FormatError(f"'{path}' is no saved guard", hint=HINT)
            fitted: type[Fitted] = method_class("guard", kind).fitted
            if any(len(metadata[name]) > MOST_JSON for name in fitted.texts):
                raise FormatError(f"'{path}' holds more text than a guard has ({MOST_JSON} characters)", hint=HINT)
            tensors = {name: file.get_tensor(name) for name in fitted.tensors}
        rate = json.loads(metadata["false_rejection"])
        return fitted(
            **tensors,  # type: ignore[call-arg]
            **{name: json.loads(metadata[name]) for name in fitted.texts},
            threshold=float(metadata["threshold"]),
            model_digest=metadata["model_digest"],
            false_rejection=Rate.model_validate(rate) if rate else None,
        )
    except FileNotFoundError as error:
        raise FormatError(f"no such file: '{path}'", hint=HINT) from error
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise FormatError(f"'{path}' is no saved guard: {error}", hint=HINT) from error
