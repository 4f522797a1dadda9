"""ONNX files, exported here from torch: the same logits and gradients, and from outside where that cannot be."""

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

onnx = pytest.importorskip("onnx", reason="needs the extra [onnx]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from ostiary.api import scan_model  # noqa: E402
from ostiary.core.errors import ConfigError, DataError, MissingExtra, ModelError  # noqa: E402
from ostiary.core.plan import plan  # noqa: E402
from ostiary.core.protocols import Predictor  # noqa: E402
from ostiary.core.session import Options  # noqa: E402
from ostiary.data import ArraySet  # noqa: E402
from ostiary.inputs import have_of  # noqa: E402
from ostiary.models.classifier import FROM_PROBABILITIES, TorchClassifier  # noqa: E402
from ostiary.models.fuse import fused_inference  # noqa: E402
from ostiary.models.load import load_model, load_predictor  # noqa: E402
from ostiary.models.onnx import OnnxPredictor  # noqa: E402
from ostiary.models.zoo import ZOO, build  # noqa: E402
from ostiary.scan.recover import frozen  # noqa: E402

SHAPE = (3, 32, 32)


def trained(arch: str, classes: int = 5) -> nn.Module:
    """A network whose normalisations have seen something."""
    module = build(arch, classes, width=4).eval()
    generator = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for value in (layer.running_var, layer.weight.data, layer.bias.data, layer.running_mean):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return module


def export(module: nn.Module, path: Path, batch: int | None = 1, shape: tuple[int, int, int] = SHAPE) -> Path:
    """Write `module` as ONNX for `batch` images at a time, None for any number of images of any size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (torch.rand(batch or 2, *shape),),
            path,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes=None if batch else {"images": {0: "n", 2: "h", 3: "w"}},
            dynamo=False,
        )
    return path


def images(n: int = 5, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(7))


def slopes(logits: Any, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(logits(x).square().sum(), x)[0]


def assert_same(classifier: TorchClassifier, module: nn.Module, x: Tensor) -> None:
    """The same logits, features that give them, and the same gradients."""
    with torch.no_grad():
        expected = module(x)
    torch.testing.assert_close(classifier.logits(x), expected, rtol=1e-4, atol=1e-4)
    head = classifier.module.get_submodule(classifier.head_name)
    torch.testing.assert_close(head(classifier.features(x)), expected, rtol=1e-4, atol=1e-4)
    expected = slopes(module, x)
    # A rectifier at its bend may turn either way.
    gap = (slopes(classifier.logits, x) - expected).abs()
    assert gap.quantile(0.999) < 1e-3 * expected.abs().max()


@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("arch", ZOO)
def test_zoo(arch: str, batch: int | None, tmp_path: Path) -> None:
    module = trained(arch)
    classifier = load_model(export(module, tmp_path / "m.onnx", batch))
    assert classifier.input_shape == SHAPE and classifier.classes == tuple("01234")
    assert (classifier.arch, classifier.name, classifier.caution) == ("onnx", "m.onnx", None)
    assert_same(classifier, module, images())
    quick = fused_inference(classifier, channels_last=True)
    torch.testing.assert_close(quick.logits(images()), classifier.logits(images()), rtol=1e-3, atol=1e-3)
    assert frozen(classifier, bf16=True)[1] == torch.bfloat16


TINY = {"num_labels": 4, "image_size": 32}
TRANSFORMERS = {
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


class Logits(nn.Module):
    """The logits alone of a transformers model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(pixel_values=x).logits


@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_transformers(kind: str, batch: int | None, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra [text]")
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**TINY, **TRANSFORMERS[kind])
    module = Logits(getattr(transformers, f"{kind}ForImageClassification")(config)).eval()
    classifier = load_model(export(module, tmp_path / "m.onnx", batch))
    assert_same(classifier, module, images())
    assert frozen(classifier, bf16=True)[1] == torch.bfloat16


def test_options_apply(tmp_path: Path) -> None:
    module = trained("small-cnn")
    path = export(module, tmp_path / "M.ONNX", None)
    names = ["a", "b", "c", "d", "e"]
    classifier = load_model(path, classes=names, normalize="0.5,0.25", input_shape=(3, 24, 16))
    assert classifier.classes == tuple(names) and classifier.input_shape == (3, 24, 16)
    x = images(2, (3, 24, 16))
    torch.testing.assert_close(classifier.logits(x), module((x - 0.5) / 0.25), rtol=1e-4, atol=1e-4)
    assert load_model(path).digest != classifier.digest
    export(trained("small-cnn"), tmp_path / "n.onnx", 1)
    assert load_model(tmp_path / "n.onnx").digest != load_model(path).digest, "the graph is part of the digest"
    with pytest.raises(ConfigError, match="takes images of 3x32x32") as caught:
        load_model(tmp_path / "n.onnx", input_shape=(3, 24, 16))
    assert caught.value.hint
    for how in ({"arch": "small-cnn"}, {"width": 4}):
        with pytest.raises(ConfigError, match="holds its own architecture"):
            load_model(path, **how)
    with pytest.raises(ModelError, match="has 5 outputs, 3 classes were given"):
        load_model(path, classes=3)


def test_probabilities(tmp_path: Path) -> None:
    module = trained("small-cnn")
    path = export(nn.Sequential(module, nn.Softmax(1)), tmp_path / "m.onnx")
    classifier = load_model(path)
    assert classifier.caution is None
    torch.testing.assert_close(classifier.logits(images()), module(images()), rtol=1e-4, atol=1e-4)
    sharp = nn.Sequential(module, nn.Sigmoid(), nn.Softmax(1))
    assert load_model(export(sharp, tmp_path / "n.onnx")).caution == FROM_PROBABILITIES


def test_half_precision_is_read_as_float(tmp_path: Path) -> None:
    module = trained("small-cnn")
    path = export(module, tmp_path / "m.onnx", None)
    model = onnx.load(path)
    for entry in model.graph.initializer:
        array = numpy_helper.to_array(entry)
        if array.dtype == np.float32:
            entry.CopyFrom(numpy_helper.from_array(array.astype(np.float16), entry.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, path)
    classifier = load_model(path)
    assert {weight.dtype for weight in classifier.module.parameters()} == {torch.float32}
    torch.testing.assert_close(classifier.logits(images()), module(images()), rtol=1e-2, atol=1e-2)


def quantised(path: Path, scale: float = 1 / 64) -> Path:
    """Put a quantisation and its reversal before the network in `path`."""
    model = onnx.load(path)
    graph = model.graph
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name == "images":
                node.input[at] = "rounded"
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(scale, dtype=np.float32), "scale"),
            numpy_helper.from_array(np.array(0, dtype=np.uint8), "zero"),
        ]
    )
    graph.node.insert(0, helper.make_node("DequantizeLinear", ["bytes", "scale", "zero"], ["rounded"]))
    graph.node.insert(0, helper.make_node("QuantizeLinear", ["images", "scale", "zero"], ["bytes"]))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("batch", [None, 2])
def test_quantised_graphs_are_run_from_outside(batch: int | None, tmp_path: Path) -> None:
    module = trained("small-cnn")
    path = quantised(export(module, tmp_path / "m.onnx", batch))
    predictor = load_predictor(path, normalize="0,0.5")
    assert isinstance(predictor, OnnxPredictor) and isinstance(predictor, Predictor)
    assert "DequantizeLinear, QuantizeLinear" in predictor.caution
    access = have_of(predictor, None).access
    assert [method.card.id for method in plan("scan", access=access)] == ["scan.b3d"]
    assert predictor.input_shape == SHAPE and predictor.classes == tuple("01234") and len(predictor.digest) == 64
    with torch.no_grad():
        expected = module((images() * 128).round() / 64).softmax(1)
    torch.testing.assert_close(predictor.predict(images()), expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(ModelError, match="takes images of 3x32x32"):
        predictor.predict(images(2, (3, 8, 8)))
    with pytest.raises(ModelError, match="gives no gradients: it has operators") as caught:
        load_model(path)
    assert caught.value.hint


def test_a_form_that_differs_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = export(trained("small-cnn"), tmp_path / "m.onnx")
    assert isinstance(load_predictor(path), TorchClassifier)
    monkeypatch.setitem(sys.modules["ostiary.models.onnx_ops"].OPS, "Relu", lambda a, x: torch.nn.functional.elu(x))
    predictor = load_predictor(path)
    assert isinstance(predictor, OnnxPredictor) and "differs from onnxruntime by" in predictor.reason


def test_a_form_without_gradient_is_not_taken(tmp_path: Path) -> None:
    path = export(trained("small-cnn"), tmp_path / "m.onnx")
    model = onnx.load(path)
    first = model.graph.node[0]
    first.input[0] = "whole"
    model.graph.node.insert(0, helper.make_node("Floor", ["images"], ["whole"]))
    onnx.save(model, path)
    predictor = load_predictor(path, normalize="0,0.1")
    assert isinstance(predictor, OnnxPredictor) and "no gradient" in predictor.reason


def trusted(n: int = 40) -> ArraySet:
    pixels = np.random.default_rng(0).integers(0, 256, (n, *SHAPE), dtype=np.uint8)
    return ArraySet(pixels, np.arange(n) % 5, tuple("01234"), name="noise")


def test_scan(tmp_path: Path) -> None:
    params = {"scan.mm-bd": {"steps": 3, "starts": 2}, "scan.neural-cleanse": {"steps": 3}}
    path = export(trained("small-cnn"), tmp_path / "m.onnx")
    record = scan_model(path, trusted(), methods=list(params), params=params, options=Options())
    assert [result.status for result in record.results] == ["ok", "ok"]
    assert record.config["arch"] == "onnx" and "OS102" not in [caution.code for caution in record.cautions]
    outside = scan_model(quantised(path), trusted(), methods=list(params), params=params, options=Options())
    assert [result.status for result in outside.results] == ["skipped", "skipped"]
    assert outside.verdict == "incomplete"
    told = next(caution for caution in outside.cautions if caution.code == "OS102")
    assert "QuantizeLinear" in told.text
    assert "trusted_accuracy" in outside.config
    with pytest.raises(DataError, match="has images of 3x8x8"):
        scan_model(path, ArraySet(np.zeros((10, 3, 8, 8), dtype=np.uint8), np.arange(10) % 5), options=Options())


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.onnx").write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match="needs onnx and onnxruntime") as caught:
        load_model(tmp_path / "m.onnx")
    assert caught.value.hint == "pip install 'ostiary[onnx]'"
