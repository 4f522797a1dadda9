"""Hugging Face folders, made here from tiny configurations."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ostiary.api import scan_model
from ostiary.core.errors import ConfigError, DataError, FormatError, MissingExtra, ModelError, OstiaryError
from ostiary.core.records import Rate
from ostiary.data import ArraySet
from ostiary.models.fuse import fused_inference
from ostiary.models.load import load_model
from ostiary.scan.recover import frozen

MARKS = {0: "stop", 1: "yield", 2: "priority"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny ResNet with a preprocessor."""
    transformers = pytest.importorskip("transformers", reason="needs the extra [text]")
    config = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", id2label=MARKS, num_labels=3
    )
    torch.manual_seed(0)
    path = tmp_path / "model"
    transformers.ResNetForImageClassification(config).save_pretrained(path)
    preprocessor = {
        "do_normalize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_center_crop": True,
        "size": {"shortest_edge": 48},
        "crop_size": {"height": 40, "width": 36},
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
    }
    (path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return path


def change(path: Path, **entries: object) -> None:
    """Change entries of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | entries
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_folder(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoModelForImageClassification

    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    capfd.readouterr()
    classifier = load_model(folder)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert classifier.classes == ("stop", "yield", "priority")
    assert classifier.input_shape == (3, 40, 36)
    assert classifier.arch == "transformers/ResNetForImageClassification"
    x = torch.rand(2, 3, 40, 36, requires_grad=True)
    model = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True).eval()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))
    logits = classifier.logits(x)
    torch.testing.assert_close(logits, model(pixel_values=(x - mean) / std).logits)
    head = classifier.module.get_submodule(classifier.head_name)
    torch.testing.assert_close(head(classifier.features(x)), logits)


def test_vision_transformer_has_features(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra [text]")
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=32, patch_size=16
    )
    config.num_labels = 4
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    classifier = load_model(tmp_path / "vit", normalize="0.5,0.5")
    assert classifier.input_shape == (3, 32, 32) and classifier.mean == (0.5,) * 3
    assert classifier.features(classifier.probe()).shape == (4, 8)


def test_rescale_factor_is_part_of_the_normalisation(folder: Path) -> None:
    change(folder / "preprocessor_config.json", rescale_factor=1 / 127.5, image_mean=[1, 1, 1], image_std=[1, 1, 1])
    classifier = load_model(folder)
    assert classifier.mean == pytest.approx((0.5,) * 3) and classifier.std == pytest.approx((0.5,) * 3)


def test_weights_only_pickle(folder: Path) -> None:
    expected = load_model(folder).digest
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert load_model(folder).digest == expected


class Hostile:
    """Unpickles by running a command that creates the marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch '{self.marker}'",)


def test_hostile_pickle_does_not_run(folder: Path) -> None:
    torch.save({"w": Hostile(folder / "marker")}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FormatError, match=r"'pytorch_model.bin' is a pickle that is not weights-only"):
        load_model(folder)
    assert not (folder / "marker").exists()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"auto_map": {"AutoModelForImageClassification": "evil.Model"}}, "brings code of its own"),
        ({"quantization_config": {"quant_method": "gptq"}}, "not examined: 'model' is quantised"),
        ({"model_type": "no-such-model"}, "cannot be loaded as an image classifier"),
        ({"model_type": "bert"}, "cannot be loaded as an image classifier"),
        ({"embedding_size": 6}, r"do not fit its config.json: .*ill-shaped \(.* is \[.*\], by the config \["),
        ({"architectures": ["BertForSequenceClassification"]}, "is a classifier of texts, and a model of images"),
    ],
)
def test_refused_configurations(folder: Path, entries: dict[str, object], words: str) -> None:
    change(folder / "config.json", **entries)
    with pytest.raises(ModelError, match=words):
        load_model(folder)


def test_missing_weights_are_not_made_up(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in state.items() if not name.startswith("classifier")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"do not fit its config.json: 2 missing \(classifier"):
        load_model(folder)


def test_damaged_folders(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="folder with its own architecture"):
        load_model(folder, "resnet18")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="not examined: 'model' is an adapter"):
        load_model(folder)
    (folder / "adapter_config.json").unlink()
    state = load_file(folder / "model.safetensors")
    name = next(name for name in state if name.endswith("weight"))
    state[name].view(-1)[0] = torch.nan
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=f"NaN or infinity in '{name}'"):
        load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FormatError, match="has no weights"):
        load_model(folder)
    for content, words in (("{", "not JSON"), ("[]", "not an object")):
        (folder / "config.json").write_text(content)
        with pytest.raises(FormatError, match=words):
            load_model(folder)


def test_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"holds no config.json"):
        load_model(tmp_path)


def test_without_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    save_file({"w": torch.zeros(1)}, tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra) as caught:
        load_model(tmp_path)
    assert caught.value.hint == "pip install 'ostiary[text]'"
    assert isinstance(caught.value, OstiaryError)


TINY = {
    "ResNet": {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"},
    "ViT": {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "patch_size": 8,
    },
    "ConvNext": {"hidden_sizes": [4, 8], "depths": [1, 1], "num_stages": 2},
    "Swin": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "patch_size": 4},
}
NAMES = ("ape", "bee", "cat", "dog", "eel")
SIZED = ("ViT", "ConvNext", "Swin")
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
STEPS = 40


def colours(classes: tuple[str, ...] = NAMES) -> ArraySet:
    """Noisy images of five colours, eight of each."""
    pixels = np.random.default_rng(0).integers(0, 64, (40, 3, 32, 32), dtype=np.uint8)
    tints = np.array([[0, 0, 0], [190, 0, 0], [0, 190, 0], [0, 0, 190], [190, 190, 190]], dtype=np.uint8)
    return ArraySet(pixels + tints[np.arange(40) % 5, :, None, None], np.arange(40) % 5, classes, name="colours")


def learn(model: torch.nn.Module) -> None:
    """Teach `model` the five colours, in place."""
    data = colours()
    x = (data.take(range(40)) - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    optimiser = torch.optim.Adam(model.train().parameters(), lr=0.02)
    for _ in range(STEPS):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(pixel_values=x).logits, data.labels).backward()
        optimiser.step()
    model.eval()


@pytest.fixture(params=TINY)
def tiny(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, torch.nn.Module]:
    """A folder as `save_pretrained` makes it, for images of 32x32, and the model in it."""
    transformers = pytest.importorskip("transformers", reason="needs the extra [text]")
    kind = request.param
    sized = {"image_size": 32} if kind in SIZED else {}
    config = getattr(transformers, f"{kind}Config")(**TINY[kind], **sized, id2label=dict(enumerate(NAMES)))
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForImageClassification")(config)
    learn(model)
    path = tmp_path / kind
    model.save_pretrained(path)
    preprocessor = {
        "do_resize": True,
        "size": {"height": 32, "width": 32},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
    }
    normal = {"do_normalize": True, "image_mean": MEAN, "image_std": STD}
    (path / "preprocessor_config.json").write_text(json.dumps(preprocessor | normal))
    return path, model


def test_architectures(tiny: tuple[Path, torch.nn.Module]) -> None:
    path, model = tiny
    classifier = load_model(path)
    assert classifier.classes == NAMES and classifier.input_shape == (3, 32, 32)
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    with torch.no_grad():
        expected = model(pixel_values=(x - mean) / std).logits
    torch.testing.assert_close(classifier.logits(x), expected)
    head = classifier.module.get_submodule(classifier.head_name)
    torch.testing.assert_close(head(classifier.features(x)), expected)
    quick = fused_inference(classifier, channels_last=True)
    torch.testing.assert_close(quick.logits(x), expected, rtol=1e-4, atol=1e-5)
    assert quick.digest == classifier.digest
    short, dtype = frozen(classifier, bf16=True)
    assert dtype == torch.bfloat16 and short.logits(short.probe()).dtype == torch.bfloat16


def test_architectures_are_scanned(tiny: tuple[Path, torch.nn.Module]) -> None:
    params = {"scan.neural-cleanse": {"steps": 50}, "scan.mm-bd": {"steps": 3, "starts": 2}}
    record = scan_model(tiny[0], colours(), methods=list(params), params=params)
    assert Rate.model_validate(record.config["trusted_accuracy"]).value > 0.9
    assert [(result.status, result.reason) for result in record.results] == [("ok", None)] * 2
    assert all(len(result.examined) == len(NAMES) for result in record.results)
    assert len(record.results[0].evidence.candidates) == len(NAMES)
    # It is transformers' own code that was run, and none of the user's.
    assert not {"OS905", "OS907"} & {caution.code for caution in record.cautions}


@pytest.mark.parametrize("tiny", ["ResNet"], indirect=True)
def test_the_order_of_the_classes_is_checked(tiny: tuple[Path, torch.nn.Module]) -> None:
    with pytest.raises(DataError, match="names class 0 'bee', the model 'ape': the same classes in another order"):
        scan_model(tiny[0], colours(("bee", "ape", *NAMES[2:])))
