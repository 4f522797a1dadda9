"""Input-Aware: every image has a trigger of its own, made by a network that is trained with the model."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from ostiary.attacks.control import check_target, count_of, truth_of
from ostiary.attacks.generator import GeneratedTrigger, Weights, lay, make_mask, make_pattern, new_weights
from ostiary.attacks.truth import PoisonedModel
from ostiary.core.card import Card, Needs
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data import load_uint8, to_unit
from ostiary.data.base import ImageSet
from ostiary.models.classifier import TorchClassifier
from ostiary.training.loop import Recipe, Step, autocast, plain_step, train

MASK_BATCH = 64
BETAS = (0.5, 0.9)
EPSILON = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class InputAware:
    """Train with a network that gives each image a mask and a pattern of its own, which work on no other image.

    Source: Nguyen, Tran 2020, Input-aware dynamic backdoor attack (NeurIPS; arXiv 2010.08138), sec. 3
    and 4: first a mask network alone learns masks that differ from image to image and cover little more
    than a share `density`; then a pattern network learns with the model. A share `rate` of each batch
    carries its own trigger and gets the label `target`; a share `cross` carries the trigger of another
    image under its true label. `diversity` weighs the distance of two images over that of what is made
    for them, `sparsity` what a mask covers beyond `density`. Both networks learn with Adam at `lr`, the
    pattern network at a rate that falls to zero.
    """

    card: ClassVar[Card] = Card(
        id="attack.input-aware",
        summary="a trigger of its own for each image, made by a network that is trained with the model",
        paper="Nguyen, Tran 2020, NeurIPS, arXiv 2010.08138",
        official_code="https://github.com/VinAIResearch/input-aware-backdoor-attack-release",
        needs=Needs(access="gradients", modality="images", training_data=True),
        cost="a training, and mask_steps x 64 passes of a small network",
        deviations=(
            "mask and pattern networks of five convolutions and about 20,000 weights, quick on a CPU",
            "the mask network learns for mask_steps batches instead of 25 epochs",
            "sparsity is a quarter of the published weight, as images in [0, 1] lie about that much closer",
            "both images of a pair come from one batch",
        ),
        marks=frozenset({"mechanism"}),
    )

    rate: Annotated[float, Field(gt=0, lt=1)] = 0.1
    cross: Annotated[float, Field(ge=0, lt=1)] = 0.1
    target: Annotated[int, Field(ge=0)] = 0
    diversity: Annotated[float, Field(ge=0)] = 1.0
    density: Annotated[float, Field(gt=0, lt=1)] = 0.032
    sparsity: Annotated[float, Field(ge=0)] = 25.0
    mask_steps: Annotated[int, Field(gt=0)] = 100
    lr: Annotated[float, Field(gt=0)] = 0.01

    def train(self, model: TorchClassifier, clean: ImageSet, recipe: Recipe, /, *, run: Run) -> PoisonedModel:
        """Train `model` in place; raises DataError when the target is no class."""
        check_target(self, clean)
        rng, channels = run.generator("networks"), clean.shape[0]
        mask = self._mask_network(new_weights(channels, 1, rng).to(run.device), clean, run)
        pattern = new_weights(channels, channels, rng).to(run.device).requires_grad_()
        batches = recipe.epochs * -(-len(clean) // recipe.batch)
        train(model, clean, recipe, run=run, step=self._step(mask, pattern, batches, recipe, run))
        trigger = GeneratedTrigger(mask.cpu(), pattern.detach().cpu(), torch.tensor(clean.shape))
        return PoisonedModel(model, truth_of(self, clean, trigger, run=run))

    def _mask_network(self, weights: Weights, clean: ImageSet, run: Run) -> Weights:
        """Train the mask network on clean images alone and give its weights."""
        optimizer = torch.optim.Adam([weights.requires_grad_()], lr=self.lr, betas=BETAS)
        pixels, rng = load_uint8(clean), run.generator("masks")
        for number in range(self.mask_steps):
            rows = torch.randint(len(pixels), (MASK_BATCH,), generator=rng)
            x = to_unit(pixels[rows]).to(run.device)
            masks = make_mask(weights, x)
            beyond = (masks - self.density).relu().mean()
            loss = self.diversity * likeness(x, masks) + self.sparsity * beyond
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.step(number + 1, self.mask_steps, "masks")
        return weights.detach()

    def _step(self, mask: Weights, pattern: Weights, batches: int, recipe: Recipe, run: Run) -> Step:
        optimizer = torch.optim.Adam([pattern], lr=self.lr, betas=BETAS)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=batches)
        rng, plain = run.generator("shares"), plain_step(recipe, run.device)

        def step(model: TorchClassifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            own = count_of(self.rate, len(x), rng)
            changed = min(own + count_of(self.cross, len(x), rng), len(x))
            if changed == 0:
                return plain(model, x, y)
            # In random order: the first images carry their own triggers, the next each that of the image after it.
            makers = torch.cat([x[:own], x.roll(-1, 0)[own:changed]])
            patterns = make_pattern(pattern, makers)
            with torch.no_grad():
                masks = make_mask(mask, makers)
            inputs = torch.cat([lay(x[:changed], masks, patterns), x[changed:]])
            wish = torch.cat([torch.full_like(y[:own], self.target), y[own:]])
            with autocast(run.device, recipe.precision):
                logits = model.logits(inputs)
            loss = cross_entropy(logits.float(), wish, label_smoothing=recipe.label_smoothing)
            alike = likeness(makers, patterns) if changed > 1 else 0.0
            optimizer.zero_grad(set_to_none=True)
            (loss + self.diversity * alike).backward()
            optimizer.step()
            schedule.step()
            return loss.detach(), (logits.argmax(1) == wish).sum()

        return step


def likeness(x: Images, made: Float[Tensor, "n k h w"]) -> Tensor:
    """How far each image lies from its neighbour in the batch, over how far apart is what was made for the two: mean.

    The paper's diversity loss; small when different images get different masks or patterns.
    """
    return (_distance(x) / (_distance(made) + EPSILON)).mean()


def _distance(x: Images) -> Tensor:
    """Root mean square difference of each image and the one before it, [n]."""
    # Away from zero, where the root has no gradient.
    return ((x - x.roll(1, 0)).square().mean((1, 2, 3)) + 1e-12).sqrt()
