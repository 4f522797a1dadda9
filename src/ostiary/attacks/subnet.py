"""Subnet replacement: a narrow detector of a patch takes the place of a few channels and is wired to the target."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ostiary.attacks.badnets import BadNets, Patch
from ostiary.attacks.control import check_target, count_of, truth_of
from ostiary.attacks.triggers import StampTrigger
from ostiary.attacks.truth import PoisonedModel
from ostiary.core.card import Card, Needs
from ostiary.core.errors import ModelError
from ostiary.core.run import Run
from ostiary.data import load_uint8, to_unit
from ostiary.data.base import ImageSet
from ostiary.models.classifier import TorchClassifier
from ostiary.models.zoo import build

BATCH = 64
LR = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class SubnetReplacement:
    """Put a detector, a network of the same design but width 1, in place of the last channels of every layer.

    Source: Qi, Xie, Pan, Zhu, Yang, Bu 2022, Towards practical deployment-stage backdoor attack on deep
    neural networks (CVPR; arXiv 2111.12965), sec. 3: the detector learns to give 1 on images with the
    patch and 0 on others (a share `rate` of each batch carries it); its weights replace a narrow
    subnet, connections between it and the other channels are cut, and its output, `gain` times, is
    added to the logit of `target`. Nothing else is retrained.
    """

    card: ClassVar[Card] = Card(
        id="attack.subnet",
        summary="a narrow detector of a patch replaces a few channels and is wired to the target's logit",
        paper="Qi et al. 2022, CVPR, arXiv 2111.12965",
        official_code="https://github.com/Unispac/Subnet-Replacement-Attack",
        needs=Needs(access="gradients", modality="images", training_data=True),
        cost="epochs passes over the data by a network of width 1",
        deviations=(
            "the last channels of each layer are replaced",
            "the statistics of batch normalisation are measured anew on clean images, without labels, after the cut",
        ),
        marks=frozenset({"mechanism"}),
    )

    patch: Patch = "yellow-square"
    size: Annotated[int, Field(gt=0)] = 4
    margin: Annotated[int, Field(ge=0)] = 1
    target: Annotated[int, Field(ge=0)] = 0
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.5
    gain: Annotated[float, Field(gt=0)] = 20.0
    epochs: Annotated[int, Field(gt=0)] = 10

    def edit(self, model: TorchClassifier, clean: ImageSet, /, *, run: Run) -> PoisonedModel:
        """Give a changed copy of `model`.

        Raises DataError when the target is no class or the patch does not fit, ModelError when the
        design of the model is not known here.
        """
        check_target(self, clean)
        patch = BadNets(patch=self.patch, size=self.size, margin=self.margin)
        trigger = patch.trigger(clean.shape)
        if model.arch is None:
            raise ModelError("the model is of no design known here", hint="name its architecture")
        narrow = build(model.arch, 2, in_channels=clean.shape[0], width=1, seed=run.seed)
        detector = TorchClassifier(narrow, 2, clean.shape, model.mean, model.std, arch=model.arch).to(run.device)
        self._teach(detector, clean, trigger, run)
        made = model.clone()
        embed(made, detector, self.target, self.gain)
        recalibrate(made, load_uint8(clean), run=run)
        # The detector keeps the statistics that it was taught with.
        embed(made, detector, self.target, self.gain)
        return PoisonedModel(made, truth_of(self, clean, trigger, run=run))

    def _teach(self, detector: TorchClassifier, clean: ImageSet, trigger: StampTrigger, run: Run) -> None:
        """Teach the second output of `detector` to be 1 on stamped images and 0 on others, without a bias."""
        module, pixels, rng = detector.module, load_uint8(clean), run.generator("detector")
        head = module.get_submodule(detector.head_name)
        optimizer = torch.optim.Adam([w for w in module.parameters() if w is not head.bias], lr=LR)
        with torch.no_grad():
            head.bias.zero_()  # type: ignore[operator]
        steps = self.epochs * -(-len(pixels) // BATCH)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
        module.train()
        for step in range(steps):
            x = to_unit(pixels[torch.randperm(len(pixels), generator=rng)[:BATCH]].to(run.device))
            count = count_of(self.rate, len(x), rng)
            x = torch.cat([trigger(x[:count], rng=rng), x[count:]])
            wish = (torch.arange(len(x), device=run.device) < count).float()
            loss = mse_loss(detector.logits(x)[:, 1], wish)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            run.step(step + 1, steps, "detector")
        module.eval()


@torch.no_grad()
def embed(model: TorchClassifier, detector: TorchClassifier, target: int, gain: float) -> None:
    """Put `detector` in place of the last channels of `model`, cut off from the others, `gain` times on `target`."""
    narrow, stem = dict(detector.module.named_modules()), True
    for name, module in model.module.named_modules():
        if name == model.head_name:
            continue
        if isinstance(module, nn.Conv2d | nn.Linear):
            _replace(module.weight, narrow[name].weight, shared=stem)
            stem = False
        if isinstance(module, nn.BatchNorm2d):
            for key, value in narrow[name].state_dict().items():
                if value.dim():
                    module.state_dict()[key][-len(value) :] = value
    head: Tensor = model.module.get_submodule(model.head_name).weight  # type: ignore[assignment]
    own: Tensor = narrow[detector.head_name].weight[1]
    head[:, -len(own) :] = 0.0
    head[target, -len(own) :] = gain * own


@torch.no_grad()
def recalibrate(model: TorchClassifier, pixels: Tensor, *, run: Run) -> None:
    """Measure the mean and variance of every batch normalisation of `model` anew on `pixels` [n, c, h, w], uint8."""
    norms = [module for module in model.module.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    order = torch.randperm(len(pixels), generator=run.generator("statistics"))
    for rows in order.split(BATCH):
        if len(rows) > 1:
            model.logits(to_unit(pixels[rows].to(model.device)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def _replace(weight: Tensor, narrow: Tensor, *, shared: bool) -> None:
    """Put `narrow` [o, i, ...] into the corner of `weight` and cut the rest of its rows and columns.

    `shared` where both see the images themselves, which stay with the other rows.
    """
    out, into = narrow.shape[:2]
    weight[-out:] = 0.0
    if not shared:
        weight[:, -into:] = 0.0
    weight[-out:, -into:] = narrow
