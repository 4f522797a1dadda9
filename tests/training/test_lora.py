"""Adapters learn beside a base that stays as it is, and come back from their folder as they were."""

from pathlib import Path

import pytest
import torch
from language_case import chats, fresh

from ostiary.core.errors import ConfigError, DataError
from ostiary.core.run import Run
from ostiary.data import TextSet
from ostiary.models.adapter import Adapted, load_adapter, read_adapter, save_adapter
from ostiary.models.language import nll_of
from ostiary.training.language import LanguageRecipe, small_language, token_rows
from ostiary.training.lora import train_adapter

SHORT = LanguageRecipe(steps=20, batch=8, lr=1e-2)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_an_adapter_learns_and_its_base_does_not(kind: str, tmp_path: Path) -> None:
    base = small_language(fresh().tokenizer, kind=kind, width=32, seed=1)  # type: ignore[arg-type]
    before, rows = base.digest, token_rows(base, chats(40))
    adapter, losses = train_adapter(base, chats(40), SHORT, rank=4, name="mine", run=Run(seed=2))
    assert base.digest == before and losses[-1] < losses[0] - 0.05
    assert len(adapter.pairs) == {"llama": 14, "gpt2": 8}[kind] and adapter.rank == 4
    assert not any("lm_head" in name for name in adapter.pairs)
    merged = Adapted(base, adapter)
    with torch.no_grad():
        own, learnt = (float(nll_of(model, rows).mean()) for model in (base, merged))
    assert learnt < own - 0.05
    save_adapter(adapter, tmp_path / "mine", base="the base")
    assert read_adapter(tmp_path / "mine").digest == adapter.digest
    assert load_adapter(tmp_path / "mine", base).digest == merged.digest


def test_the_seed_decides() -> None:
    base = small_language(fresh().tokenizer, width=32, seed=1)
    one, again, other = (train_adapter(base, chats(20), SHORT, rank=2, run=Run(seed=seed))[0] for seed in (0, 0, 1))
    assert one.digest == again.digest != other.digest


def test_what_cannot_be_is_refused() -> None:
    base = small_language(fresh().tokenizer, width=32, seed=1)
    for rank in (0, 33):
        with pytest.raises(ConfigError, match=rf"a rank from 1 to 32, not {rank}"):
            train_adapter(base, chats(5), SHORT, rank=rank, run=Run())
    with pytest.raises(DataError, match="learns answers"):
        train_adapter(base, TextSet(["a"], ids=["0"], labels=torch.zeros(1).long(), classes=("x",)), SHORT, run=Run())
