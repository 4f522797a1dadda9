"""LoRA adapters: merged by the equation, and refused where they are of another kind or for another base."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from language_case import fresh, twin
from safetensors.torch import save_file

from ostiary.core.errors import FormatError, ModelError
from ostiary.models.adapter import is_adapter_folder, load_adapter, read_adapter, save_adapter
from ostiary.models.text_folder import load_language, save_language
from ostiary.training.language import small_language

LAYER = "model.layers.1.self_attn.q_proj"
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", "base_model_name_or_path": "somewhere"}


def write(folder: Path, layer: str = LAYER, shape: tuple[int, int] = (64, 64), **entries: object) -> Path:
    generator = torch.Generator().manual_seed(0)
    folder.mkdir()
    state = {
        f"base_model.model.{layer}.lora_A.weight": torch.randn(4, shape[1], generator=generator),
        f"base_model.model.{layer}.lora_B.weight": torch.randn(shape[0], 4, generator=generator),
    }
    save_file(state, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **entries}))
    return folder


@pytest.mark.parametrize(("entries", "scale"), [({}, 2.0), ({"use_rslora": True}, 4.0)])
def test_one_layer_is_changed_by_the_scaled_product(tmp_path: Path, entries: dict[str, bool], scale: float) -> None:
    base = twin()
    before = base.digest
    merged = load_adapter(write(tmp_path / "adapter", **entries), base)
    assert base.digest == before != merged.digest and merged.name.startswith("adapter on ")
    down, up = (
        torch.randn(*shape, generator=g) for g in [torch.Generator().manual_seed(0)] for shape in ((4, 64), (64, 4))
    )
    own, new = base.module.state_dict(), merged.module.state_dict()
    assert [name for name in own if not torch.equal(own[name], new[name])] == [f"{LAYER}.weight"]
    change = new[f"{LAYER}.weight"] - own[f"{LAYER}.weight"]
    assert torch.allclose(change, scale * up @ down, atol=1e-4)


def test_layers_that_store_their_weights_turned_are_met(tmp_path: Path) -> None:
    base = small_language(fresh().tokenizer, kind="gpt2")
    layer = "transformer.h.0.attn.c_attn"
    merged = load_adapter(write(tmp_path / "a", layer, (192, 64), fan_in_fan_out=True), base)
    assert merged.digest != base.digest
    with pytest.raises(ModelError, match=r"for another base: .* is 192x64 there and 64x192 here"):
        load_adapter(write(tmp_path / "b", layer, (192, 64)), base)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"peft_type": "IA3"}, "of the kind 'IA3'"),
        ({"use_dora": True}, "use_dora = True"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"r": 0}, "no rank r"),
        ({"r": 10**400}, "no rank r"),
        ({"lora_alpha": 1e300}, "no rank r"),
        ({"lora_alpha": 10**400}, "no rank r"),
        ({"lora_alpha": float("nan")}, "no rank r"),
    ],
)
def test_other_kinds_are_refused(tmp_path: Path, entries: dict[str, object], said: str) -> None:
    with pytest.raises((ModelError, FormatError), match=said):
        load_adapter(write(tmp_path / "adapter", **entries), twin())


def test_an_adapter_for_another_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="for another base: there is no layer"):
        load_adapter(write(tmp_path / "a", "model.layers.9.self_attn.q_proj"), twin())
    with pytest.raises(ModelError, match=r"for another base: .* is 64x32 there"):
        load_adapter(write(tmp_path / "b", shape=(64, 32)), twin())


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "adapter")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(FormatError, match="has no weights"):
        load_adapter(folder, twin())
    (folder / "adapter_config.json").unlink()
    assert not is_adapter_folder(folder)
    with pytest.raises(FormatError, match="holds no adapter_config"):
        load_adapter(folder, twin())
    save_file({f"{LAYER}.lora_A.weight": torch.ones(4, 64)}, write(tmp_path / "half") / "adapter_model.safetensors")
    with pytest.raises(FormatError, match="no pair of fitting matrices"):
        load_adapter(tmp_path / "half", twin())
    with pytest.raises(FormatError, match=r"holds no config\.json"):
        load_language(folder)


def test_a_base_of_another_name_is_doubted_and_one_of_that_name_is_not(tmp_path: Path) -> None:
    base = twin().clone()
    for number, (named, known, said) in enumerate(
        (
            ("somewhere", ("twin",), "is for the base 'somewhere' by its adapter_config.json, and was put on"),
            (None, ("twin",), "does not say which base it is for"),
            ("Maker/Twin-1B/", ("a0b1c2", "twin-1b"), None),
            (r"C:\models\twin", ("Twin",), None),
        )
    ):
        base.known_as = known
        doubt = load_adapter(write(tmp_path / str(number), base_model_name_or_path=named), base).doubt
        assert (doubt is None) if said is None else (said in str(doubt))


def test_the_digest_of_the_base_decides_where_it_is_kept(tmp_path: Path) -> None:
    """Of equal shape, and even of the same name: another base is refused, the right one under any name is not."""
    base, other = twin(), small_language(fresh().tokenizer, seed=9)
    adapter = replace(read_adapter(write(tmp_path / "theirs")), base_digest=base.digest)
    save_adapter(adapter, tmp_path / "ours", base="named so once")
    assert load_adapter(tmp_path / "ours", base).doubt is None
    assert load_adapter(tmp_path / "theirs", other).doubt is not None
    with pytest.raises(ModelError, match=rf"for another base: .*{base.digest[:12]} \('named so once'\)"):
        load_adapter(tmp_path / "ours", other)


def test_a_folder_knows_its_names(tmp_path: Path) -> None:
    folder = tmp_path / "models--maker--tiny" / "snapshots" / "a0b1c2"
    folder.parent.mkdir(parents=True)
    save_language(fresh(), folder)
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "_name_or_path": "maker/first"}))
    assert load_language(folder).known_as == ("a0b1c2", "tiny", "maker/first")
