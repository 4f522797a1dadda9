"""Poisoned sets: the asked share of the whole set, labels as mapped, true labels in the truth, nothing to tell by."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from ostiary.attacks.badnets import BadNets
from ostiary.attacks.blended import Blended
from ostiary.attacks.truth import Poisoned, load_truth, save_truth, wanted
from ostiary.core.errors import DataError, FormatError
from ostiary.core.run import Run
from ostiary.data import ArraySet, ImageSet, digits


@pytest.fixture(scope="module")
def source() -> ImageSet:
    return digits("train").subset(range(400))


def flags(made: Poisoned) -> torch.Tensor:
    return torch.tensor([id_ in made.truth.poisoned for id_ in made.data.ids])


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.333])
def test_the_rate_is_a_share_of_the_whole_set(source: ImageSet, rate: float) -> None:
    made = BadNets(rate=rate).poison(source, run=Run())
    assert len(made.truth.poisoned) == int(flags(made).sum()) == int(rate * 400 + 0.5)


def originals(source: ImageSet, made: Poisoned) -> dict[bytes, int]:
    return {image.numpy().tobytes(): int(y) for image, y in zip(source.pixels(range(400)), source.labels, strict=True)}


@pytest.mark.parametrize("mapping", ["all-to-one", "all-to-all"])
def test_labels_and_true_labels(source: ImageSet, mapping: str) -> None:
    made = BadNets(rate=0.2, mapping=mapping, target=3).poison(source, run=Run())  # type: ignore[arg-type]
    known = originals(source, made)
    pixels = made.data.pixels(range(400))
    for row, id_ in enumerate(made.data.ids):
        label = int(made.data.labels[row])
        if id_ not in made.truth.poisoned:
            assert known[pixels[row].numpy().tobytes()] == label, "an untouched sample keeps pixels and label"
            continue
        true = made.truth.poisoned[id_]
        assert label == (3 if mapping == "all-to-one" else (true + 1) % 10)
        assert label != true, "a sample of the target class is not poisoned"


def test_poisoned_pixels_are_the_stamped_ones_at_8_bits(source: ImageSet) -> None:
    made = Blended(rate=0.1).poison(source, run=Run())
    stamped = made.truth.trigger(source.take(range(400)), rng=torch.Generator())
    levels = {(image * 255).round().to(torch.uint8).numpy().tobytes() for image in stamped}
    for row in flags(made).nonzero().squeeze(1).tolist():
        assert made.data.pixels([row])[0].numpy().tobytes() in levels


def test_order_and_ids_tell_nothing(source: ImageSet) -> None:
    made = BadNets(rate=0.2).poison(source, run=Run())
    assert list(made.data.ids) == [f"{row:06d}" for row in range(400)]
    where = flags(made).nonzero().squeeze(1).float()
    assert 120 < float(where.mean()) < 280, "the poison is spread over the set"
    assert not set(made.data.ids) & set(source.ids)


def test_a_seed_is_a_set(source: ImageSet) -> None:
    one, same, other = (BadNets(rate=0.1).poison(source, run=Run(seed=seed)) for seed in (1, 1, 2))
    assert one.data.digest == same.data.digest != other.data.digest
    assert one.truth.poisoned == same.truth.poisoned


def test_the_source_is_untouched(source: ImageSet) -> None:
    before = source.pixels(range(400))
    BadNets(rate=0.3).poison(source, run=Run())
    assert torch.equal(source.pixels(range(400)), before)


def test_the_label_map() -> None:
    labels = torch.tensor([0, 1, 2, 9])
    assert wanted(labels, "all-to-one", 2, 9, 10).tolist() == [2, 2, 2, 2]
    assert wanted(labels, "all-to-all", 2, 9, 10).tolist() == [1, 2, 3, 0]
    assert wanted(labels, "source-specific", 2, 9, 10).tolist() == [0, 1, 2, 2]
    assert wanted(labels, "clean-label", 2, 9, 10).tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("attack", "words"), [(BadNets(target=10), "outside"), (BadNets(rate=0.99), "can be"), (BadNets(size=40), "fit")]
)
def test_what_cannot_be_poisoned_is_refused(source: ImageSet, attack: BadNets, words: str) -> None:
    with pytest.raises(DataError, match=words):
        attack.poison(source, run=Run())


def test_a_rate_that_rounds_to_nothing_is_refused() -> None:
    tiny = ArraySet(torch.zeros(20, 3, 8, 8, dtype=torch.uint8), torch.arange(20) % 2)
    with pytest.raises(DataError, match="0 poisoned"):
        BadNets(rate=0.01).poison(tiny, run=Run())


def test_a_picture_as_pattern(tmp_path: Path) -> None:
    Image.new("RGB", (5, 7), (255, 0, 51)).save(tmp_path / "p.png")
    trigger = Blended(image=str(tmp_path / "p.png")).trigger((3, 8, 8), Run())
    assert trigger.pattern[:, 4, 4].tolist() == pytest.approx([1.0, 0.0, 0.2])
    (tmp_path / "no.png").write_bytes(b"no picture")
    with pytest.raises(FormatError, match="cannot read the picture"):
        Blended(image=str(tmp_path / "no.png")).trigger((3, 8, 8), Run())


def test_truth_survives_the_disk(source: ImageSet, tmp_path: Path) -> None:
    truth = Blended(rate=0.1, target=4).poison(source, run=Run(seed=5)).truth
    save_truth(truth, tmp_path / "set.truth")
    again = load_truth(tmp_path / "set.truth")
    assert again.poisoned == truth.poisoned and again.classes == truth.classes and again.params == truth.params
    assert torch.equal(again.trigger.pattern, truth.trigger.pattern)
    (tmp_path / "set.truth" / "truth.json").write_text("{}")
    with pytest.raises(FormatError):
        load_truth(tmp_path / "set.truth")
