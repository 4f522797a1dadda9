"""Adapters against a bank: what is boosted is unusual, what is like the bank is not; neither is a finding."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from language_case import chats, fresh

from ostiary.api import scan_model
from ostiary.cli.common import exit_code
from ostiary.core.errors import ConfigError, FormatError, ModelError, NotMet
from ostiary.core.records import Record
from ostiary.core.reference import ALPHA
from ostiary.core.run import Run
from ostiary.core.session import Options
from ostiary.models.adapter import Adapted, Adapter, save_adapter
from ostiary.models.language import LanguageModel
from ostiary.scan.adapter_bank import (
    AdapterBank,
    check_bank,
    features,
    furthest,
    make_bank,
    measured,
    read_bank,
    unlike,
)
from ostiary.scan.adapter_spectrum import AdapterSpectrum
from ostiary.training.language import small_language

LAYERS = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj")
SHAPES = ((64, 64), (192, 64))
RANK = 4


def made(seed: int, boost: float = 0.0, rank: int = RANK, layers: tuple[str, ...] = LAYERS) -> Adapter:
    """A made-up adapter whose directions fall off; with a boost one direction of the last layer is stronger."""
    generator = torch.Generator().manual_seed(seed)
    pairs = {}
    for name, (rows, columns) in zip(layers, SHAPES, strict=False):
        falling = 0.1 * 0.7 ** torch.arange(rank)
        up = torch.randn(rows, rank, generator=generator) * falling
        pairs[name] = (torch.randn(rank, columns, generator=generator) / 8, up)
    down, up = pairs[layers[-1]]
    up[:, 0] *= 1 + boost
    return Adapter(f"made-{seed}", 2.0, {**pairs, layers[-1]: (down, up)})


@cache
def base() -> LanguageModel:
    return fresh()


@cache
def bank(n: int = 24) -> AdapterBank:
    adapters = tuple(measured(made(seed)) for seed in range(n))
    return AdapterBank(created="2026-01-01T00:00:00+00:00", ostiary="0", base=base().digest, adapters=adapters)


def test_features_are_those_of_the_product() -> None:
    down, up = made(0).pairs[LAYERS[1]]
    whole = 2.0 * up @ down
    values = torch.linalg.svdvals(whole)[:RANK].double()
    top, energy, share, entropy, kurtosis = features(made(0))[LAYERS[1]]
    part = values.square() / values.square().sum()
    assert np.exp(top) == pytest.approx(float(values[0]), rel=1e-4)
    assert np.exp(energy) == pytest.approx(float(whole.norm()), rel=1e-4)
    assert share == pytest.approx(float(part[0]), rel=1e-4)
    assert entropy == pytest.approx(float(-(part * part.log()).sum()) / np.log(RANK), rel=1e-3)
    centred = whole.double().flatten()
    assert np.exp(kurtosis) == pytest.approx(float(centred.pow(4).mean() / centred.square().mean() ** 2), rel=1e-4)


def test_features_do_not_depend_on_how_the_product_is_parted() -> None:
    adapter, turn = made(0), torch.randn(RANK, RANK, generator=torch.Generator().manual_seed(9))
    pairs = {name: (turn @ down, up @ torch.linalg.inv(turn)) for name, (down, up) in adapter.pairs.items()}
    one, other = features(adapter), features(Adapter("turned", 2.0, pairs))
    for name in LAYERS:
        assert one[name] == pytest.approx(other[name], abs=1e-3)


def test_one_direction_and_none_have_finite_features() -> None:
    flat = Adapter("flat", 1.0, {"a": (torch.ones(1, 5), torch.ones(3, 1)), "b": (torch.ones(2, 5), torch.zeros(3, 2))})
    found = features(flat)
    assert found["a"][2:4] == pytest.approx((1.0, 0.0), abs=1e-6)
    assert all(np.isfinite(list(one)).all() for one in found.values())


@pytest.mark.parametrize("seed", [100, 101, 102])
def test_what_is_like_the_bank_is_not_unusual_and_what_is_boosted_is(seed: int) -> None:
    plain, boosted = (unlike(measured(made(seed, boost)), bank()) for boost in (0.0, 4.0))
    assert not plain.unusual and plain.p > ALPHA
    assert boosted.unusual and boosted.layer == LAYERS[1] and boosted.distance > 2 * plain.distance
    assert boosted.p == pytest.approx(1 / 25) and boosted.others == 24


def test_few_of_a_bank_are_unusual_among_the_others_and_never_against_themselves() -> None:
    found = [unlike(one, bank()) for one in bank().adapters]
    assert {one.others for one in found} == {23}
    assert sum(one.unusual for one in found) == 1, "the furthest of 24 is one in 24"
    order = furthest(bank())
    assert [one.distance for _, one in order] == sorted((one.distance for one in found), reverse=True)
    assert furthest(bank().model_copy(update={"adapters": bank().adapters[:19]})) == []


def test_one_more_like_it_in_the_bank_makes_it_usual() -> None:
    """The mutant: a bank in which a share of more than one in twenty is as far."""
    more = (*bank().adapters, *(measured(made(seed, 4.0)) for seed in (200, 201)))
    other = bank().model_copy(update={"adapters": more})
    assert not unlike(measured(made(100, 4.0)), other).unusual


def test_too_few_of_its_kind_are_an_error_and_no_pass() -> None:
    for own in (made(1, rank=3), made(1, layers=LAYERS[:1])):
        with pytest.raises(ConfigError, match="the bank has 0 other adapters of rank"):
            unlike(measured(own), bank())
    few = bank().model_copy(update={"adapters": bank().adapters[:18]})
    with pytest.raises(ConfigError, match=r"has 18 other adapters .* 19 are needed"):
        unlike(measured(made(100)), few)
    enough = bank().model_copy(update={"adapters": bank().adapters[:19]})
    assert unlike(measured(made(100, 4.0)), enough).unusual


def judged(adapter: Adapter, of: AdapterBank) -> Record:
    model = Adapted(base(), adapter)
    return scan_model(model, None, methods=("adapter-spectrum",), calibration=of, options=Options())


def test_unusual_is_a_caution_and_no_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSTIARY_RUNS", str(tmp_path))
    for boost, told in ((4.0, ["OS931"]), (0.0, [])):
        record = judged(made(100, boost), bank())
        (result,) = record.results
        assert result.status == "ok" and result.findings == () and record.verdict == "incomplete"
        assert [one.code for one in result.cautions] == told
        assert exit_code(record, "note", named=True) == 3  # no method said anything of the model
        assert {"base", "adapter", "model"} <= set(record.digests)


def test_a_small_bank_fails_the_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSTIARY_RUNS", str(tmp_path))
    record = judged(made(100), bank().model_copy(update={"adapters": bank().adapters[:5]}))
    assert record.results[0].status == "failed" and record.results[0].evidence is None
    assert "19 are needed" in str(record.results[0].reason) and exit_code(record, "suspect", named=False) == 3


def test_without_a_bank_or_an_adapter_the_method_is_skipped_with_a_reason() -> None:
    with pytest.raises(NotMet, match="needs a bank"):
        AdapterSpectrum().scan(Adapted(base(), made(1)), chats(5), run=Run())
    with pytest.raises(NotMet, match="needs an adapter"):
        AdapterSpectrum(bank=bank()).scan(base(), None, run=Run())


def test_a_bank_is_of_one_base() -> None:
    check_bank(bank(), base().digest)
    other = bank().model_copy(update={"base": "0" * 64})
    with pytest.raises(ConfigError, match="of the base 000000000000, this one is of"):
        AdapterSpectrum(bank=other).scan(Adapted(base(), made(1)), None, run=Run())
    with pytest.raises(ConfigError, match="judges adapters, and this is none"):
        scan_model(base(), chats(), calibration=bank())


def test_a_bank_is_made_of_folders_and_goes_on(tmp_path: Path) -> None:
    folders = [tmp_path / f"a{seed}" for seed in range(3)]
    for seed, folder in enumerate(folders):
        save_adapter(made(seed), folder, base="somewhere")
    wider = Adapter("wide", 1.0, {LAYERS[0]: (torch.ones(2, 96), torch.ones(96, 2))})
    save_adapter(wider, tmp_path / "wide", base="another")
    out = tmp_path / "bank.json"
    found, left = make_bank([*folders[:2], tmp_path / "wide", tmp_path], base(), out, Options())
    assert read_bank(out) == found and [one.name for one in found.adapters] == ["a0", "a1"]
    assert ["for another base" in one.reason for one in left] == [True, False]
    assert found.adapters[0].layers == measured(made(0)).layers and found.base == base().digest
    again, _ = make_bank(folders, base(), out, Options())
    assert [one.name for one in again.adapters] == ["a0", "a1", "a2"] and read_bank(out) == again
    with pytest.raises(ConfigError, match="the bank is of adapters of the base"):
        make_bank(folders, small_language(fresh().tokenizer, seed=5), out, Options())
    with pytest.raises(ConfigError, match="none of the adapters"):
        make_bank([tmp_path / "wide"], base(), tmp_path / "none.json", Options())
    assert not (tmp_path / "none.json").exists()


def test_huge_entries_are_measured_and_endless_ones_left_out(tmp_path: Path) -> None:
    """Entries that are finite one by one: the powers of their product must not run over, nor the merged weight."""
    large, endless = (
        Adapter(name, scale, {LAYERS[0]: (torch.full((2, 64), size), torch.full((64, 2), size))})
        for name, scale, size in (("large", 1.0, 1e10), ("endless", 1.0, 1e25))
    )
    for one in (large, endless, made(0)):
        save_adapter(one, tmp_path / one.name, base="somewhere")
    folders = [tmp_path / name for name in ("large", "endless", "made-0")]
    found, left = make_bank(folders, base(), tmp_path / "bank.json", Options())
    assert [one.name for one in found.adapters] == ["large", "made-0"]
    assert all(np.isfinite(one.layers[LAYERS[0]]).all() for one in found.adapters)
    assert [one.name for one in left] == [str(tmp_path / "endless")] and "NaN or infinite" in left[0].reason
    for scale in (float("inf"), float("nan")):
        with pytest.raises(ModelError, match="NaN or infinite"):
            Adapted(base(), Adapter("scaled", scale, made(0).pairs))


@pytest.mark.parametrize("content", ["", "[]", '{"kind": "reference"}', '{"kind": "adapter-bank", "extra": 1}'])
def test_what_is_no_bank_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "bank.json").write_text(content)
    with pytest.raises(FormatError, match="is no bank of adapters"):
        read_bank(tmp_path / "bank.json")
    with pytest.raises(FormatError, match="cannot read the bank"):
        read_bank(tmp_path / "missing.json")
