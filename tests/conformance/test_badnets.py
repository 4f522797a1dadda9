"""BadNets implants: Gu et al. 2017, sec. 4 and 5. Its poisoned set is the one of the lab."""

import dataclasses
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from ostiary.attacks.badnets import BadNets
from ostiary.bench.demo import RATE, RECIPE
from ostiary.bench.metrics import attack_rates
from ostiary.core.run import Run
from ostiary.data import ArraySet


def test_the_poisoned_model_obeys_the_patch_and_the_twin_does_not(lab: Any) -> None:
    assert lab.accuracy(lab.model) > 0.95
    assert lab.implants(lab.model, lab.poisoned.truth)


def test_the_share_is_of_the_whole_set(lab: Any) -> None:
    assert int(lab.is_poisoned.sum()) == len(lab.poisoned.truth.poisoned) == round(RATE * len(lab.part))


def test_mutant_without_relabelling_does_not_implant(lab: Any, train_on: Any) -> None:
    made = BadNets(patch="yellow-square", target=0, rate=RATE).poison(lab.part, run=Run())
    truth = made.truth
    own = [truth.poisoned.get(id_, int(label)) for id_, label in zip(made.data.ids, made.data.labels, strict=True)]
    data = ArraySet(made.data.pixels(range(len(own))), own, made.data.classes, made.data.ids)
    model = train_on(data, dataclasses.replace(RECIPE, epochs=5))
    assert lab.accuracy(model) >= 0.9, "the mutant must be a trained model, or it shows nothing"
    assert not lab.implants(model, truth)


def test_a_sticker_implants_too(lab: Any, train_on: Any, tmp_path: Path) -> None:
    """Gu et al. 2017, sec. 5: pictures as stickers. A red disc with a yellow core, round through its alpha channel."""
    sticker = Image.new("RGBA", (64, 64))
    draw = ImageDraw.Draw(sticker)
    draw.ellipse((4, 4, 60, 60), fill=(255, 40, 60))
    draw.rectangle((24, 24, 40, 40), fill=(255, 230, 0))
    sticker.save(tmp_path / "sticker.png")
    made = BadNets(image=str(tmp_path / "sticker.png"), target=0, rate=RATE).poison(lab.part, run=Run())
    assert lab.implants(train_on(made.data, dataclasses.replace(RECIPE, epochs=8)), made.truth)


def turned(lab: Any, train_on: Any, cover: float) -> tuple[bool, float]:
    """Whether the source-specific patch (threes alone, to 0) implants, and its false-trigger rate."""
    attack = BadNets(mapping="source-specific", source=3, target=0, rate=RATE, cover=cover)
    made = attack.poison(lab.part, run=Run())
    model = train_on(made.data, dataclasses.replace(RECIPE, epochs=12))
    found = attack_rates(model, lab.test, made.truth, run=Run())
    assert found.false_trigger is not None and found.false_trigger.n > 300
    return lab.implants(model, made.truth), found.false_trigger.value or 0.0


def test_with_covers_the_source_alone_is_turned(lab: Any, train_on: Any) -> None:
    """Tang et al. 2021, sec. 4: the trigger does nothing to other classes."""
    implanted, strayed = turned(lab, train_on, cover=0.1)
    assert implanted and strayed <= 0.1


def test_mutant_without_covers_turns_every_class(lab: Any, train_on: Any) -> None:
    implanted, strayed = turned(lab, train_on, cover=0.0)
    assert implanted and strayed > 0.5
