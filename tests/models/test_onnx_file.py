"""Bad ONNX files: each gives its own error, with a next step, and nothing of it is run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the extra [onnx]")
pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from ostiary.core.errors import FormatError, ModelError, OstiaryError  # noqa: E402
from ostiary.models.load import load_model  # noqa: E402

FORM = ("n", 3, 8, 8)


def linear(form: tuple[Any, ...] = FORM, kind: int = TensorProto.FLOAT, outputs: int = 4) -> Any:
    """A whole model of one linear layer."""
    weight = np.random.default_rng(0).normal(size=(192, outputs)).astype(np.float32)
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w"], ["y"], name="head")]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", kind, form)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", outputs])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def load(model: Any, folder: Path) -> Any:
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return load_model(folder / "m.onnx", input_shape=(3, 8, 8))


def test_the_model_itself_is_good(tmp_path: Path) -> None:
    classifier = load(linear(), tmp_path)
    assert classifier.classes == tuple("0123") and classifier.head_name == "gemm_1"


def custom(model: Any) -> None:
    model.graph.node[1].domain = "evil.ops"
    model.opset_import.append(helper.make_opsetid("evil.ops", 1))


def functions(model: Any) -> None:
    node = helper.make_node("Relu", ["a"], ["b"])
    model.functions.append(helper.make_function("ai.onnx", "Own", ["a"], ["b"], [node], [helper.make_opsetid("", 17)]))


def loop(model: Any) -> None:
    empty = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["z"], name="spin", body=empty))


def sparse(model: Any) -> None:
    model.graph.sparse_initializer.add()


def second_input(model: Any) -> None:
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))


def second_output(model: Any) -> None:
    model.graph.output.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, ["n", 192]))


def nan(model: Any) -> None:
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, 0] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))


def short(model: Any) -> None:
    model.graph.initializer[0].raw_data = b"1234"


def unknown_name(model: Any) -> None:
    model.graph.node[1].input[1] = "nowhere"


def bomb(model: Any) -> None:
    shape = np.array([2**20, 2**20], dtype=np.int64)
    model.graph.initializer.append(numpy_helper.from_array(shape, "huge"))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["huge"], ["boom"]))


def newer(model: Any) -> None:
    model.opset_import[0].version = 9999


CHANGES: dict[str, tuple[Callable[[Any], None], type[OstiaryError], str]] = {
    "custom domain": (custom, ModelError, r"OS101 not examined: 'm.onnx' has operators of 'evil.ops' \(Gemm\)"),
    "functions": (functions, ModelError, "defines 1 functions of its own"),
    "loop": (loop, ModelError, r"has control flow \(Loop 'spin'\)"),
    "sparse": (sparse, ModelError, "has sparse weights"),
    "two inputs": (second_input, ModelError, r"has 2 inputs \('x', 'mask'\), not one"),
    "two outputs": (second_output, ModelError, r"has 2 outputs \('y', 'f'\), not one"),
    "NaN": (nan, ModelError, r"NaN or infinity in 'w' \(1 of 768 values\)"),
    "short weights": (short, FormatError, "is a damaged ONNX model|is damaged"),
    "unknown name": (unknown_name, FormatError, "is a damaged ONNX model"),
    "bomb": (bomb, ModelError, r"makes a tensor of 1048576x1048576 values \('boom'\)"),
    "future operators": (newer, FormatError, "m.onnx"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_bad_models(name: str, tmp_path: Path) -> None:
    change, error, words = CHANGES[name]
    model = linear()
    change(model)
    with pytest.raises(error, match=words) as caught:
        load(model, tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("form", "kind", "words"),
    [
        (("n", 3, 8), TensorProto.FLOAT, r"takes 'x' of \?x3x8, not images"),
        (("n", 8, 8, 3), TensorProto.FLOAT, r"takes 'x' of \?x8x8x3: its channels are last"),
        (FORM, TensorProto.UINT8, "takes 'x' of the type uint8, not floats"),
        (FORM, TensorProto.INT64, "takes 'x' of the type int64, not floats"),
    ],
)
def test_other_inputs(form: tuple[Any, ...], kind: int, words: str, tmp_path: Path) -> None:
    model = linear()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", kind, form))
    if kind != TensorProto.FLOAT:
        model.graph.node[0].input[0] = "images"
        model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["images"], to=TensorProto.FLOAT))
    with pytest.raises(ModelError, match=words) as caught:
        load(model, tmp_path)
    assert caught.value.hint


def test_other_outputs(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not one row of two or more logits each"):
        load(linear(outputs=1), tmp_path)
    (tmp_path / "open.onnx").write_bytes(linear(("n", 3, "h", "w")).SerializeToString())
    with pytest.raises(ModelError, match="cannot be run on images of 3x9x8"):
        load_model(tmp_path / "open.onnx", input_shape=(3, 9, 8))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hello, this is no model", "is no ONNX model"),
        (b"\x08\x07" + bytes(32), "is no ONNX model"),
        (b"\x08\x07", "one without operators"),
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ],
)
def test_files_that_are_no_models(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(FormatError, match=words) as caught:
        load_model(tmp_path / "m.onnx")
    assert caught.value.hint


def test_missing_and_truncated(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file"):
        load_model(tmp_path / "m.onnx")
    load(linear(), tmp_path)
    whole = (tmp_path / "m.onnx").read_bytes()
    (tmp_path / "m.onnx").write_bytes(whole[:-200])
    with pytest.raises(FormatError, match="is no ONNX model, or a damaged one"):
        load_model(tmp_path / "m.onnx")


def beside(folder: Path, location: str = "m.data", **entries: object) -> Any:
    """The model with its weights in a file of their own, which is written."""
    model = linear()
    weight = model.graph.initializer[0]
    (folder / "m.data").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=str(value))
    return model


def test_weights_beside_the_model(tmp_path: Path) -> None:
    digest = load(linear(), tmp_path).digest
    classifier = load(beside(tmp_path), tmp_path)
    first = classifier.digest
    weight = numpy_helper.to_array(linear().graph.initializer[0])
    np.testing.assert_array_equal(classifier.module.gemm_1.weight.detach().numpy(), weight.T)
    (tmp_path / "m.data").write_bytes((weight + 1).tobytes())
    assert len({digest, first, load_model(tmp_path / "m.onnx", input_shape=(3, 8, 8)).digest}) == 3


@pytest.mark.parametrize("location", ["../m.data", "/etc/passwd", "sub/m.data", "..", "", "./m.data"])
def test_weights_elsewhere_are_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    model = beside(tmp_path / "sub", location)
    (tmp_path / "m.data").write_bytes((tmp_path / "sub" / "m.data").read_bytes())
    with pytest.raises(FormatError, match="which is not a file beside it") as caught:
        load(model, tmp_path if location.startswith("sub") else tmp_path / "sub")
    assert caught.value.hint


def test_bad_weights_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for entries, words in (({"offset": 10**9}, "offset"), ({"length": 10**8}, "length"), ({"offset": -4}, "offset")):
        with pytest.raises(FormatError, match=words):
            load(beside(tmp_path, **entries), tmp_path)
    with pytest.raises(FormatError, match=r"'gone\.data', which is not there"):
        load(beside(tmp_path, "gone.data"), tmp_path)
    (tmp_path / "link.data").symlink_to(tmp_path / "m.data")
    with pytest.raises(FormatError, match="which is not a file beside it"):
        load(beside(tmp_path, "link.data"), tmp_path)
    monkeypatch.setattr("ostiary.models.onnx_file.MAX_BYTES", 3100)
    with pytest.raises(FormatError, match="and the weights beside it are more than the limit of 3100"):
        load(beside(tmp_path), tmp_path)
    monkeypatch.setattr("ostiary.models.onnx_file.MAX_BYTES", 100)
    with pytest.raises(FormatError, match="more than the limit of 100"):
        load_model(tmp_path / "m.onnx")
