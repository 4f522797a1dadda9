"""One table for all data attacks that have a trigger."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contract_case import Case, by_id, check_class, check_skips, disagreements
from PIL import Image
from scipy.fft import dctn
from test_indiscriminate import CASES as WITHOUT_TRIGGER
from test_model_attacks import CASES as MODEL_CASES
from test_text_contracts import ATTACKS as ON_TEXTS
from test_text_contracts import CONTROLS

from ostiary.attacks.badnets import BadNets
from ostiary.attacks.blended import Blended
from ostiary.attacks.bpp import BppAttack
from ostiary.attacks.ftrojan import FTrojan
from ostiary.attacks.sig import Sig
from ostiary.attacks.triggers import tensors_of
from ostiary.attacks.truth import Poisoned, load_truth, save_truth, truth_path
from ostiary.attacks.wanet import WaNet
from ostiary.core.catalog import method_class
from ostiary.core.errors import ConfigError, DataError, FormatError, OutputError
from ostiary.core.execute import params_of
from ostiary.core.protocols import DataAttack
from ostiary.core.run import Run
from ostiary.core.seal import TRUTH_SUFFIX
from ostiary.data import ArraySet, load_uint8

N, CLASSES = 203, 5


CASES = (
    Case(id="attack.badnets", tiny={"rate": 0.2, "target": 1, "size": 3}),
    Case(id="attack.blended", tiny={"rate": 0.2, "target": 1}),
    Case(id="attack.adaptive-blend", tiny={"rate": 0.2, "target": 1}),
    Case(id="attack.adaptive-patch", tiny={"rate": 0.2, "target": 1, "size": 4}),
    Case(id="attack.sig", tiny={"rate": 0.2, "target": 1, "mapping": "all-to-one"}),
    Case(id="attack.label-consistent", tiny={"rate": 0.1, "target": 1, "steps": 2}),
    Case(id="attack.narcissus", tiny={"rate": 0.1, "target": 1, "epochs": 2}),
    Case(id="attack.ftrojan", tiny={"rate": 0.2, "target": 1}),
    Case(id="attack.bpp", tiny={"rate": 0.2, "target": 1}),
    Case(id="attack.wanet", tiny={"rate": 0.2, "target": 1, "cover": 0}),
    Case(id="attack.issba", tiny={"rate": 0.2, "target": 1, "steps": 20}),
)
OTHER_IN_TRAINING = {
    "attack.adaptive-blend",
    "attack.adaptive-patch",
    "attack.label-consistent",
    "attack.narcissus",
}
"""Their training images carry something else than test images will."""


def has_mapping(case: Case) -> bool:
    """Whether the label map is for the user to choose; otherwise it is clean-label."""
    return "mapping" in {field.name for field in dataclasses.fields(method_class("attack", case.id))}


def build(case: Case, mapping: str, **params: Any) -> Any:
    """The attack with this label map."""
    return case.build(**({"mapping": mapping} if has_mapping(case) else {}), **params)


MAPPED = tuple(case for case in CASES if has_mapping(case))
PAIRS = tuple(
    (case, mapping)
    for case in CASES
    for mapping in (("all-to-one", "all-to-all") if case in MAPPED else ("clean-label",))
)
by_mapping = pytest.mark.parametrize(("case", "mapping"), PAIRS, ids=[f"{case.id}-{m}" for case, m in PAIRS])


@pytest.fixture(scope="module")
def source() -> ArraySet:
    """Distinct random images, so that each can be found again by its bytes."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (N, 3, 12, 12), np.uint8)
    return ArraySet(pixels, rng.integers(0, CLASSES, N), [f"c{label}" for label in range(CLASSES)])


def images_of(data: Any) -> list[bytes]:
    return [image.numpy().tobytes() for image in load_uint8(data)]


def trace_back(source: ArraySet, poisoned: Poisoned) -> tuple[list[int], torch.Tensor]:
    """The source row of every poisoned sample, and which samples the truth names as poisoned.

    An untouched sample is found by its bytes, one with a trigger as the nearest.
    """
    pixels, ids = load_uint8(source), np.array(poisoned.data.ids)
    named, covers = (np.isin(ids, list(known)) for known in (poisoned.truth.poisoned, poisoned.truth.covers))
    plain = {image.numpy().tobytes(): row for row, image in enumerate(pixels)}
    near = torch.cdist(load_uint8(poisoned.data).flatten(1).float(), pixels.flatten(1).float()).argmin(1).tolist()
    touched = (named | covers).tolist()
    images = zip(images_of(poisoned.data), near, touched, strict=True)
    found = [nearest if is_touched else plain[image] for image, nearest, is_touched in images]
    return found, torch.from_numpy(named)


def test_files_methods_and_rows_agree() -> None:
    assert disagreements("attack", CASES + WITHOUT_TRIGGER + MODEL_CASES + ON_TEXTS + CONTROLS) == []


@by_id(CASES)
def test_class_and_card(case: Case) -> None:
    check_class(case, DataAttack)


@by_id(CASES)
def test_unmet_needs_are_skipped(case: Case) -> None:
    check_skips(case, None)


@by_mapping
def test_poisons_what_it_says_and_nothing_else(case: Case, mapping: str, source: ArraySet) -> None:
    before = images_of(source)
    poisoned = build(case, mapping).poison(source, run=case.run())
    truth, data = poisoned.truth, poisoned.data
    assert images_of(source) == before
    rate = case.tiny["rate"]
    assert len(truth.poisoned) == round(rate * N) and truth.rate == rate
    assert truth.source_digest == source.digest and data.digest != source.digest
    rows, named = trace_back(source, poisoned)
    assert sorted(rows) == list(range(N)), "a sample was lost or doubled"
    if case.id not in OTHER_IN_TRAINING:
        stamped = truth.trigger(source.take(rows), rng=torch.Generator()) * 255.0
        assert torch.equal(load_uint8(data)[named], stamped.round().to(torch.uint8)[named])
    true_labels = source.labels[torch.tensor(rows)]
    assert torch.equal(data.labels[~named], true_labels[~named])
    wish = (true_labels + 1) % CLASSES if mapping == "all-to-all" else torch.ones_like(true_labels)
    assert torch.equal(data.labels[named], wish[named])
    assert [truth.poisoned[identity] for identity in np.array(data.ids)[named.numpy()]] == true_labels[named].tolist()
    if mapping == "all-to-one":
        assert 1 not in truth.poisoned.values(), "a sample of the target class was poisoned"
    assert torch.equal(truth.relabel(true_labels), wish)


@by_mapping
def test_nothing_of_the_source_order_or_ids_is_kept(case: Case, mapping: str, source: ArraySet) -> None:
    poisoned = build(case, mapping).poison(source, run=case.run())
    assert tuple(poisoned.data.ids) == tuple(f"{row:06d}" for row in range(N))
    rows, _ = trace_back(source, poisoned)
    assert abs(np.corrcoef(rows, range(N))[0, 1]) < 0.25
    assert tuple(poisoned.data.classes) == tuple(source.classes) and poisoned.data.shape == source.shape


@by_mapping
def test_same_seed_same_bytes(case: Case, mapping: str, source: ArraySet) -> None:
    method = build(case, mapping)
    state = torch.get_rng_state()
    one, two = (method.poison(source, run=Run(seed=4)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    assert one.data.digest == two.data.digest and one.truth.poisoned == two.truth.poisoned
    other = method.poison(source, run=Run(seed=5))
    assert other.data.digest != one.data.digest and other.truth.poisoned != one.truth.poisoned


@by_id(CASES)
def test_the_trigger_is_pure(case: Case, source: ArraySet) -> None:
    trigger = case.build().poison(source, run=case.run()).truth.trigger
    x = source.take(range(8))
    kept, rng = x.clone(), torch.Generator().manual_seed(2)
    first, second = trigger(x, rng=rng), trigger(x, rng=rng)
    assert torch.equal(x, kept) and torch.equal(first, second) and not torch.equal(first, x)
    assert first.min() >= 0 and first.max() <= 1
    assert torch.equal(trigger(x[3:4], rng=rng), first[3:4])


@by_id(CASES)
def test_impossible_settings_are_refused(case: Case, source: ArraySet) -> None:
    with pytest.raises(DataError, match="target 9 is outside"):
        case.build(target=9).poison(source, run=case.run())
    for rate in (0.001, 0.99):
        with pytest.raises(DataError, match="poisoned, but"):
            case.build(rate=rate).poison(source, run=case.run())
    with pytest.raises(ConfigError, match="mapping"):
        case.build(mapping="some-to-some")


@by_id(CASES)
def test_truth_comes_back_as_it_was(case: Case, source: ArraySet, tmp_path: Path) -> None:
    method = case.build()
    truth = method.poison(source, run=case.run()).truth
    folder = truth_path(tmp_path / "set.parquet")
    assert folder.name == "set.parquet" + TRUTH_SUFFIX
    save_truth(truth, folder)
    assert sorted(file.name for file in folder.iterdir()) == ["trigger.safetensors", "truth.json"]
    loaded = load_truth(folder)
    plain = [field.name for field in dataclasses.fields(truth) if field.name != "trigger"]
    assert [getattr(loaded, name) for name in plain] == [getattr(truth, name) for name in plain]
    assert loaded.params == params_of(method) and loaded.params["rate"] == case.tiny["rate"]
    assert type(loaded.trigger) is type(truth.trigger) and loaded.trigger.shape == source.shape
    kept, had = tensors_of(loaded.trigger), tensors_of(truth.trigger)
    assert kept.keys() == had.keys() and all(torch.equal(kept[name], had[name]) for name in had)
    with pytest.raises(OutputError, match="exists already"):
        save_truth(truth, folder)


def test_a_damaged_truth_is_refused(source: ArraySet, tmp_path: Path) -> None:
    folder = tmp_path / "x.truth"
    with pytest.raises(FormatError, match="no truth at"):
        load_truth(folder)
    save_truth(CASES[0].build().poison(source, run=Run()).truth, folder)
    text = (folder / "truth.json").read_text()
    for broken in ("[]", "{", text.replace('"format": 1', '"format": 2'), text.replace('"seed"', '"sead"')):
        (folder / "truth.json").write_text(broken)
        with pytest.raises(FormatError):
            load_truth(folder)


def test_a_damaged_trigger_is_refused(source: ArraySet, tmp_path: Path) -> None:
    folder = tmp_path / "x.truth"
    save_truth(CASES[0].build().poison(source, run=Run()).truth, folder)
    (folder / "trigger.safetensors").write_bytes(b"no tensors")
    with pytest.raises(FormatError, match="not a truth folder"):
        load_truth(folder)


@by_id(CASES)
def test_a_clean_label_attack_poisons_the_target_class_and_changes_no_label(case: Case, source: ArraySet) -> None:
    poisoned = build(case, "clean-label", rate=0.1).poison(source, run=case.run())
    rows, named = trace_back(source, poisoned)
    true_labels = source.labels[torch.tensor(rows)]
    assert torch.equal(poisoned.data.labels, true_labels) and int(named.sum()) == round(0.1 * N)
    assert set(true_labels[named].tolist()) == {1} == set(poisoned.truth.poisoned.values())
    assert poisoned.truth.relabel(torch.arange(CLASSES)).tolist() == [1] * CLASSES


@by_id(MAPPED)
def test_a_source_specific_attack_turns_one_class(case: Case, source: ArraySet) -> None:
    poisoned = case.build(mapping="source-specific", rate=0.1, source=3).poison(source, run=case.run())
    rows, named = trace_back(source, poisoned)
    true_labels = source.labels[torch.tensor(rows)]
    assert set(true_labels[named].tolist()) == {3} and set(poisoned.data.labels[named].tolist()) == {1}
    assert poisoned.truth.relabel(torch.arange(CLASSES)).tolist() == [0, 1, 2, 1, 4]
    with pytest.raises(DataError, match="source 9 is outside"):
        case.build(mapping="source-specific", source=9).poison(source, run=case.run())
    with pytest.raises(DataError, match="source and target are both 1"):
        case.build(mapping="source-specific", source=1).poison(source, run=case.run())


def test_covers_carry_the_patch_under_their_true_label(source: ArraySet) -> None:
    method = BadNets(mapping="source-specific", rate=0.1, target=1, source=3, size=3, cover=0.2)
    poisoned = method.poison(source, run=Run())
    truth, data = poisoned.truth, poisoned.data
    assert len(truth.covers) == round(0.2 * N) and not set(truth.covers) & set(truth.poisoned)
    patched = (load_uint8(data)[:, 0, 8:11, 8:11] == 255).flatten(1).all(1)
    ids = np.array(data.ids)
    assert set(ids[patched.numpy()]) == {*truth.covers, *truth.poisoned}
    covers = torch.from_numpy(np.isin(ids, truth.covers))
    assert set(data.labels[covers].tolist()) == {0, 2, 4}, "neither source nor target"


def test_wanet_covers_are_warped_each_in_its_own_way(source: ArraySet) -> None:
    poisoned = WaNet(rate=0.1, target=1, cover=0.2).poison(source, run=Run())
    noisy = WaNet(cover=0.2).trigger(source.shape, Run(), noisy=True)
    x = source.take([0, 0])
    twice = noisy(x, rng=torch.Generator().manual_seed(0))
    assert not torch.equal(twice[0], twice[1])
    assert len(poisoned.truth.covers) == round(0.2 * N) and float(poisoned.truth.trigger.noise) == 0.0


def test_sig_is_the_papers_sinusoid() -> None:
    signal = Sig(delta=0.1, frequency=2.0).trigger((3, 4, 16)).signal
    want = [0.1 * math.sin(2 * math.pi * 2 * j / 16) for j in range(16)]
    assert signal.shape == (3, 4, 16)
    assert torch.allclose(signal, torch.tensor(want).expand(3, 4, 16), atol=1e-7)


def test_ftrojan_raises_two_frequencies_of_the_chroma_and_nothing_else() -> None:
    signal = FTrojan(magnitude=30.0, window=8).trigger((3, 16, 16)).signal.double().numpy() * 255
    to_yuv = np.array([[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]])
    for channel, plane in enumerate(np.einsum("ij,jhw->ihw", to_yuv, signal)):
        spectrum = dctn(plane[8:, :8], norm="ortho")
        want = np.zeros((8, 8))
        want[3, 3] = want[7, 7] = 30 if channel else 0
        assert np.allclose(spectrum, want, atol=0.02), "luma untouched, both chromas raised at (3, 3) and (7, 7)"


def test_bpp_leaves_few_levels_and_keeps_the_mean(source: ArraySet) -> None:
    x = source.take(range(20))
    out = BppAttack(levels=3).trigger(source.shape)(x, rng=torch.Generator())
    assert set(out.unique().tolist()) <= {0.0, 0.5, 1.0}
    assert float((out.mean((2, 3)) - x.mean((2, 3))).abs().max()) < 0.06, "dithering spreads the error"
    plain = (x * 2).round() / 2
    flat = torch.full((1, 3, 12, 12), 0.3)
    dithered = BppAttack(levels=3).trigger(source.shape)(flat, rng=torch.Generator())
    assert float(dithered.mean()) == pytest.approx(0.3, abs=0.02) and float(((flat * 2).round() / 2).mean()) == 0.5
    assert not torch.equal(out, plain)


def test_badnets_changes_the_patch_only(source: ArraySet) -> None:
    poisoned = BadNets(rate=0.2, target=1, size=3, margin=1).poison(source, run=Run())
    rows, named = trace_back(source, poisoned)
    was, now = load_uint8(source)[torch.tensor(rows)], load_uint8(poisoned.data)
    assert torch.equal(now[~named], was[~named])
    patch = now[named][:, :, 8:11, 8:11]
    assert (patch[:, :2] == 255).all() and (patch[:, 2] == 0).all(), "a yellow square, one pixel off the corner"
    outside = torch.ones(12, 12, dtype=torch.bool)
    outside[8:11, 8:11] = False
    assert torch.equal(now[named][..., outside], was[named][..., outside])


@pytest.mark.parametrize("patch", ["white-square", "checkerboard"])
def test_badnets_patches(patch: Any) -> None:
    x = torch.full((1, 1, 8, 8), 0.5)
    stamped = BadNets(patch=patch, size=4, margin=0).trigger((1, 8, 8))(x, rng=torch.Generator())
    assert torch.equal(stamped[..., :4, :], x[..., :4, :])
    inside = stamped[0, 0, 4:, 4:]
    want = torch.ones(4, 4) if patch == "white-square" else (torch.arange(4)[:, None] + torch.arange(4)) % 2 == 1
    assert torch.equal(inside, want.float())
    with pytest.raises(DataError, match="does not fit"):
        BadNets(size=9, margin=0).trigger((1, 8, 8))


def test_blended_is_the_papers_formula(source: ArraySet) -> None:
    method = Blended(alpha=0.2, rate=0.2, target=1)
    poisoned = method.poison(source, run=Run(seed=7))
    x = source.take(range(20))
    trigger = poisoned.truth.trigger
    pattern = trigger.pattern.double()
    want = 0.2 * pattern + 0.8 * x.double()
    assert torch.allclose(trigger(x, rng=torch.Generator()).double(), want, atol=1e-6)
    rows, named = trace_back(source, poisoned)
    levels = 255.0 * (0.2 * pattern + 0.8 * source.take(rows).double()[named])
    assert float((load_uint8(poisoned.data)[named].double() - levels).abs().max()) <= 0.5 + 1e-3
    assert 0.45 < float(pattern.mean()) < 0.55 and float(pattern.std()) > 0.25, "uniform noise"
    assert torch.equal(method.trigger(source.shape, Run(seed=7)).pattern, trigger.pattern)


def test_blended_takes_a_picture(tmp_path: Path) -> None:
    picture = tmp_path / "pattern.png"
    Image.new("RGB", (30, 20), (255, 0, 51)).save(picture)
    pattern = Blended(image=str(picture)).trigger((3, 12, 12), Run()).pattern
    assert torch.allclose(pattern, torch.tensor([1.0, 0.0, 0.2])[:, None, None].expand(3, 12, 12))
    (tmp_path / "no.png").write_text("no picture")
    for name in ("no.png", "missing.png"):
        with pytest.raises(FormatError, match="cannot read the picture"):
            Blended(image=str(tmp_path / name)).trigger((3, 12, 12), Run())
