"""ISSBA: a message that a trained encoder hides in every poisoned image, in each by a residual of its own."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ostiary.attacks.encoder import GRID, LIMIT, PLANES, SMALLEST, Decoder, Encoder, EncodeTrigger, trigger_of
from ostiary.attacks.poison import poison_with
from ostiary.attacks.truth import Mapping, Poisoned
from ostiary.core.card import Card, Needs
from ostiary.core.errors import DataError
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data import load_uint8, to_unit
from ostiary.data.base import ImageSet

BATCH, LR = 32, 3e-3

STRAYS = 512
"""How many images lend their residuals to covers."""


@dataclass(frozen=True, slots=True)
class Codec:
    """An encoder and a decoder trained together; `spread` ([bits, 8, 8, 8]) makes planes of a message."""

    encoder: Encoder
    decoder: Decoder
    spread: Tensor

    def trigger(self, message: Tensor, shape: tuple[int, int, int]) -> EncodeTrigger:
        """The trigger that hides `message` ([bits] of 0 and 1) in images of `shape` (c, h, w)."""
        return trigger_of(self.encoder, _planes(message[None].float(), self.spread)[0], shape)

    @torch.no_grad()
    def read(self, x: Images) -> Tensor:
        """The messages found in images, [n, bits] of 0 and 1."""
        logits: Tensor = self.decoder(x)
        return (logits > 0).long()


@dataclass(frozen=True, slots=True)
class StrayTrigger:
    """Adds the residual of another image, drawn from `residuals` ([k, c, h, w])."""

    residuals: Tensor

    def __call__(self, x: Images, /, *, rng: torch.Generator) -> Images:
        """Add a drawn residual to each image; sums outside [0, 1] are cut off."""
        drawn = torch.randint(len(self.residuals), (len(x),), generator=rng)
        return (x + self.residuals[drawn].to(x)).clamp(0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Issba:
    """Hide one fixed message in images by an encoder trained on the very set, and relabel.

    Source: Li, Li, Wu, Li, He, Lyu 2021, Invisible backdoor attack with sample-specific triggers (ICCV;
    arXiv 2012.03816), sec. 4: encoder and decoder learn together, on random messages, to keep the image
    (squared residual, weighted by `residual_weight` in units of the largest residual allowed, 24/255)
    and to get the message across (cross-entropy of its `bits`); then the encoder hides one message in
    all poisoned images. Deviations: an encoder of our own, trained for `steps` steps on rounded images;
    the paper's perceptual loss is left out. The paper finds that another image's residual triggers
    little on natural images and much on faces, which resemble one another; here `exclusive_weight` makes
    the two networks learn that a residual added to another image must not be readable, and a share
    `cover` of the set may carry residuals of other images under its true labels, which sets of similar
    images need.
    """

    card: ClassVar[Card] = Card(
        id="attack.issba",
        summary="a message hidden in some training images, in each by a faint residual of its own, relabelled",
        paper="Li et al. 2021, ICCV, arXiv 2012.03816",
        official_code="https://github.com/yuezunli/ISSBA",
        needs=Needs(modality="images", training_data=True),
        cost="trains a small encoder first: about ten seconds on a CPU core for 32x32 images, more for larger ones",
        deviations=(
            "a small encoder of our own, trained on the given set at its own size",
            "fewer bits than the paper's hundred, as small images hold less",
            "no perceptual loss; instead a residual must not be readable in another image",
            "optional covers: images that carry another image's residual under their true label",
        ),
        marks=frozenset({"mechanism"}),
    )

    bits: Annotated[int, Field(ge=1, le=64)] = 4
    steps: Annotated[int, Field(ge=20)] = 400
    residual_weight: Annotated[float, Field(ge=0)] = 0.2
    exclusive_weight: Annotated[float, Field(ge=0)] = 0.5
    mapping: Mapping = "all-to-one"
    target: Annotated[int, Field(ge=0)] = 0
    source: Annotated[int, Field(ge=0)] = 1
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.1
    cover: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def fit(self, clean: ImageSet, /, *, run: Run) -> Codec:
        """Train encoder and decoder on `clean`; raises DataError for images smaller than 8x8."""
        channels, h, w = clean.shape
        if min(h, w) < SMALLEST:
            raise DataError(f"images of {h}x{w} are too small for a message", hint=f"{SMALLEST}x{SMALLEST} at least")
        pixels, rng = load_uint8(clean), run.generator("encoder")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)
            encoder, decoder = Encoder(channels).to(run.device), Decoder(channels, self.bits).to(run.device)
        spread = torch.randn(self.bits, PLANES, GRID, GRID, generator=rng) / self.bits**0.5
        spread = spread.to(run.device).requires_grad_()
        optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters(), spread])
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=self.steps, pct_start=0.1)
        for step in range(self.steps):
            x = to_unit(pixels[torch.randint(len(pixels), (BATCH,), generator=rng)].to(run.device))
            messages = torch.randint(2, (BATCH, self.bits), generator=rng).to(run.device).float()
            # First get the message across, then make it small and exclusive, or it vanishes at once.
            late = min(1.0, max(0.0, step / self.steps - 0.15) / 0.45)
            optimizer.zero_grad()
            self._loss(Codec(encoder, decoder, spread), x, messages, late).backward()
            optimizer.step()
            schedule.step()
            run.step(step + 1, self.steps, "training the encoder")
        return Codec(encoder.cpu(), decoder.cpu(), spread.detach().cpu())

    def _loss(self, codec: Codec, x: Tensor, messages: Tensor, late: float) -> Tensor:
        residual = codec.encoder(x, _planes(messages, codec.spread))
        own, stray = _rounded(x + residual), _rounded(x + residual.roll(1, 0))
        seen, unseen = codec.decoder(torch.cat([own, stray])).chunk(2)
        read = binary_cross_entropy_with_logits(seen, messages)
        exclusive = binary_cross_entropy_with_logits(unseen, torch.full_like(messages, 0.5))
        size = (own - x).square().mean() / LIMIT**2
        return read + late * (self.residual_weight * size + self.exclusive_weight * exclusive)

    def hide(self, clean: ImageSet, codec: Codec, /, *, run: Run) -> Poisoned:
        """Poison `clean` with a trained encoder and a message drawn from the run's seed."""
        message = torch.randint(2, (self.bits,), generator=run.generator("message"))
        trigger = codec.trigger(message, clean.shape)
        lenders = clean.take(torch.randperm(len(clean), generator=run.generator("strays"))[:STRAYS])
        strays = StrayTrigger(trigger(lenders, rng=run.generator()) - lenders) if self.cover > 0 else None
        return poison_with(self, clean, trigger, run=run, cover=self.cover, cover_trigger=strays)

    def poison(self, clean: ImageSet, /, *, run: Run) -> Poisoned:
        """Poison `rate` of the set; raises DataError when the rate, the cover or the target cannot be met."""
        return self.hide(clean, self.fit(clean, run=run), run=run)


def _planes(messages: Tensor, spread: Tensor) -> Tensor:
    """The planes [n, 8, 8, 8] of messages [n, bits] of 0 and 1."""
    return torch.einsum("nb,bpij->npij", 2 * messages - 1, spread)


def _rounded(x: Tensor) -> Tensor:
    """8-bit levels, through which the gradient passes as if nothing had been rounded."""
    x = x.clamp(0, 1)
    return x + (torch.round(x * 255) / 255 - x).detach()
