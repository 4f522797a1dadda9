"""Every operator of ONNX that is turned into torch gives what onnxruntime gives."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

onnx = pytest.importorskip("onnx", reason="needs the extra [onnx]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from ostiary.models.onnx_graph import OnnxGraph, to_torch  # noqa: E402
from ostiary.models.onnx_ops import KNOWN, Unconverted  # noqa: E402

IMAGES = (2, 3, 8, 6)
RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def whole(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def number(value: Any) -> np.ndarray:
    return np.array(value, dtype=np.int64 if isinstance(value, int) else np.float32)


class Op(NamedTuple):
    """One operator on the images `x`, with constants behind it; `before` makes its first input out of `x`."""

    kind: str
    more: tuple[np.ndarray | str | None, ...] = ()
    attrs: dict[str, Any] = {}  # noqa: RUF012 - never changed
    opset: int = 17
    before: tuple[str, ...] = ()
    gives: int = TensorProto.FLOAT


def norm_weights(n: int) -> tuple[np.ndarray, ...]:
    return normal(n), normal(n), normal(n), np.abs(normal(n)) + 0.5


POOL = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}
UNARY = [
    "Abs",
    "Exp",
    "HardSwish",
    "Identity",
    "Mish",
    "Neg",
    "Relu",
    "Sigmoid",
    "Softplus",
    "Tanh",
    "Erf",
    "Elu",
    "LeakyRelu",
    "HardSigmoid",
]
OPS = [
    *(Op(kind, opset=18) for kind in UNARY),
    *(Op(kind, before=("Exp",)) for kind in ("Log", "Sqrt", "Reciprocal")),
    *(Op(kind, (normal(3, 1, 1),)) for kind in ("Add", "Sub", "Mul", "Div", "PRelu", "Max", "Min", "Sum")),
    *(Op(kind, ("x",)) for kind in ("Add", "Max", "Sum")),
    *(Op(kind, (number(0.3),), gives=TensorProto.BOOL) for kind in ("Equal", "Greater", "GreaterOrEqual")),
    *(Op(kind, (number(0.3),), gives=TensorProto.BOOL) for kind in ("Less", "LessOrEqual")),
    Op("Pow", (number(2.0),)),
    Op("Floor"),
    Op("Ceil"),
    Op("IsNaN", gives=TensorProto.BOOL),
    Op("Not", before=("IsNaN",), gives=TensorProto.BOOL),
    Op("And", (np.array(True),), before=("IsNaN",), gives=TensorProto.BOOL),
    Op("Or", (np.array(True),), before=("IsNaN",), gives=TensorProto.BOOL),
    Op("Mod", (number(0.7),), {"fmod": 1}),
    Op("Mod", (number(3),), before=("Shape",), gives=TensorProto.INT64),
    Op("Div", (number(2),), before=("Shape",), gives=TensorProto.INT64),
    Op("Where", ("x", normal(*IMAGES)), before=("IsNaN",)),
    Op("Gelu", opset=20),
    Op("Gelu", (), {"approximate": "tanh"}, opset=20),
    Op("LRN", (), {"size": 3, "alpha": 0.1}),
    Op("Conv", (normal(4, 3, 3, 3),), {"pads": [1, 1, 1, 1]}),
    Op("Conv", (normal(6, 1, 3, 2), normal(6)), {"group": 3, "strides": [2, 1], "pads": [1, 0, 0, 1]}),
    Op("Conv", (normal(4, 3, 3, 3),), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    Op("Conv", (normal(4, 3, 2, 3),), {"auto_pad": "SAME_LOWER", "strides": [3, 2]}),
    Op("BatchNormalization", norm_weights(3), {"epsilon": 0.01}),
    Op("BatchNormalization", norm_weights(144), before=("Flatten",)),
    Op("InstanceNormalization", (normal(3), normal(3))),
    Op("LayerNormalization", (normal(6), normal(6))),
    Op("LayerNormalization", (normal(6),), {"epsilon": 0.1}),
    Op("LayerNormalization", (normal(1), normal(1))),
    Op("Gemm", (normal(5, 144), normal(5)), {"transB": 1, "alpha": 0.5, "beta": 2.0}, before=("Flatten",)),
    Op("Gemm", (normal(144, 5),), before=("Flatten",)),
    Op("Gemm", (normal(2, 5), number(0.5)), {"transA": 1}, before=("Flatten",)),
    Op("MatMul", (normal(6, 4),)),
    Op("MatMul", (normal(3, 6, 4),)),
    Op("MaxPool", (), POOL),
    Op("MaxPool", (), POOL | {"pads": [0, 1, 1, 0], "ceil_mode": 1}),
    Op("AveragePool", (), POOL),
    Op("AveragePool", (), POOL | {"pads": [0, 1, 1, 0], "count_include_pad": 1}),
    Op("GlobalAveragePool"),
    Op("GlobalMaxPool"),
    *(Op(kind, (), {"axes": [2, 3], "keepdims": 0}) for kind in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2")),
    Op("ReduceSum", (whole(-1),)),
    Op("ReduceMean", (whole(1, 2),), {"keepdims": 0}, opset=18),
    Op("ReduceSum", (), {"noop_with_empty_axes": 1}),
    Op("Softmax", (), {"axis": 1}),
    Op("LogSoftmax"),
    Op("Clip", (number(-0.5), number(0.7))),
    Op("Clip", (None, number(0.7))),
    Op("Clip", (), {"min": -0.5}, opset=10),
    Op("Dropout", (number(0.9),)),
    Op("Flatten", (), {"axis": 2}),
    Op("Reshape", (whole(0, -1, 4),)),
    Op("Transpose", (), {"perm": [0, 2, 3, 1]}),
    Op("Transpose"),
    Op("Concat", ("x", normal(2, 1, 8, 6)), {"axis": 1}),
    Op("Squeeze", (whole(2, 3),), before=("GlobalMaxPool",)),
    Op("Squeeze", (), before=("GlobalMaxPool",)),
    Op("Squeeze", (), {"axes": [3]}, opset=11, before=("GlobalMaxPool",)),
    Op("Unsqueeze", (whole(0, -1),)),
    Op("Slice", (whole(1, -5), whole(2**62, 5), whole(2, 3))),
    Op("Slice", (whole(-1), whole(-(2**62)), whole(3), whole(-2))),
    Op("Slice", (), {"starts": [1], "ends": [7], "axes": [2]}, opset=9),
    Op("Split", (whole(1, 2),), {"axis": 1}),
    Op("Split", (), {"axis": 2}),
    Op("Gather", (number(-1),), {"axis": 1}),
    Op("Gather", (np.array([[0, 2], [-3, 1]]),), {"axis": 3}),
    Op("Expand", (whole(2, 2, 1, 1, 6),)),
    Op("Tile", (whole(1, 2, 1, 3),)),
    Op("Pad", (whole(0, 0, 1, 2, 0, 1, 0, 3), number(0.5))),
    Op("Pad", (), {"pads": [0, 0, 1, 2, 0, 0, 0, 3], "mode": "reflect"}, opset=10),
    Op("Pad", (whole(1, 2), None, whole(3)), {"mode": "edge"}, opset=18),
    Op("Shape", gives=TensorProto.INT64),
    Op("Shape", (), {"start": 1, "end": -1}, gives=TensorProto.INT64),
    Op("ConstantOfShape", before=("Shape",)),
    Op("Cast", (), {"to": TensorProto.INT32}, gives=TensorProto.INT32),
    Op("Cast", (), {"to": TensorProto.FLOAT}, before=("Shape",)),
]


def model_of(op: Op, images: tuple[int, ...] = IMAGES) -> Any:
    nodes, constants, name = [], [], "x"
    for at, kind in enumerate(op.before):
        nodes.append(helper.make_node(kind, [name], [f"b{at}"]))
        name = f"b{at}"
    names = [name]
    for at, value in enumerate(op.more):
        if isinstance(value, np.ndarray):
            constants.append(numpy_helper.from_array(value, f"c{at}"))
        names.append(f"c{at}" if isinstance(value, np.ndarray) else value or "")
    outputs = ["y", "z"] if op.kind == "Split" else ["y"]
    attrs = op.attrs | ({"num_outputs": 2} if op.kind == "Split" and op.opset > 17 else {})
    nodes.append(helper.make_node(op.kind, names, outputs, **attrs))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, images)],
        [helper.make_tensor_value_info("y", op.gives, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", op.opset)], ir_version=9)


def run(model: Any, x: torch.Tensor) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x.numpy()})[0]


@pytest.mark.parametrize("op", OPS, ids=lambda op: f"{op.kind}-{op.opset}")
def test_operator(op: Op) -> None:
    model, x = model_of(op), torch.from_numpy(normal(*IMAGES))
    module = to_torch(model.graph, "x", "y", torch.zeros(IMAGES))
    with torch.no_grad():
        found = module(x).numpy()
    expected = run(model, x)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_every_operator_is_tried() -> None:
    # Range begins with no images; it is part of the graph below.
    assert {op.kind for op in OPS} | {kind for op in OPS for kind in op.before} | {"Constant", "Range"} == KNOWN


def test_layers_are_modules() -> None:
    graph = to_torch(model_of(OPS[[op.kind for op in OPS].index("Gemm")]).graph, "x", "y", torch.zeros(IMAGES))
    assert [type(module) for module in graph.children()] == [nn.Linear]
    uneven = Op("Conv", (normal(4, 3, 3, 3),), {"pads": [1, 1, 0, 0]})
    assert isinstance(to_torch(model_of(uneven).graph, "x", "y", torch.zeros(IMAGES)).conv_0[1], nn.Conv2d)


def graph_of(nodes: list[Any], constants: dict[str, np.ndarray]) -> Any:
    return helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGES)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )


def test_a_bias_added_to_a_product_is_part_of_its_layer() -> None:
    weights = {"w": normal(144, 5), "b": normal(5)}
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["p"]),
        helper.make_node("Add", ["b", "p"], ["y"]),
    ]
    module = to_torch(graph_of(nodes, weights), "x", "y", torch.zeros(IMAGES))
    layer = next(iter(module.children()))
    assert isinstance(layer, nn.Linear) and layer.bias is not None and len(module.steps) == 2
    x = torch.from_numpy(normal(*IMAGES))
    torch.testing.assert_close(
        module(x), x.flatten(1) @ torch.from_numpy(weights["w"]) + torch.from_numpy(weights["b"])
    )


def fixed_batch() -> OnnxGraph:
    """A graph for two images alone: a shape, a token laid out for both, and positions for both."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["tokens"]),
        helper.make_node("Concat", ["class", "tokens"], ["all"], axis=1),
        helper.make_node("Add", ["all", "places"], ["placed"]),
        helper.make_node("Constant", [], ["start"], value_int=0),
        helper.make_node("Constant", [], ["end"], value_int=4),
        helper.make_node("Constant", [], ["step"], value_int=3),
        helper.make_node("Range", ["start", "end", "step"], ["rows"]),
        helper.make_node("Gather", ["placed", "rows"], ["some"], axis=1),
        helper.make_node("ReduceMean", ["some"], ["y"], axes=[1], keepdims=0),
    ]
    token, places = np.repeat(normal(1, 1, 48), 2, 0), np.repeat(normal(1, 4, 48), 2, 0)
    constants = {"shape": whole(2, 3, 48), "class": token, "places": places}
    return to_torch(graph_of(nodes, constants), "x", "y", torch.zeros(3, *IMAGES[1:]), batch=2)


def test_a_fixed_batch_is_opened() -> None:
    module, x = fixed_batch(), torch.rand(5, *IMAGES[1:])
    expected = torch.cat([module(part) for part in (x[:2], x[2:4], x[3:])])
    torch.testing.assert_close(module(x), expected[[0, 1, 2, 3, 5]])


def test_values_are_let_go_where_they_are_used_last() -> None:
    assert [step.done for step in fixed_batch().steps] == [("x",), ("tokens",), ("all",), ("placed",), ("some",)]


@pytest.mark.parametrize(
    ("op", "words"),
    [
        (Op("Det"), "without a form in torch: Det"),
        (Op("Conv", (normal(4, 24, 3),), before=()), "a convolution over 1 axes"),
        (Op("Conv", ("x",)), "weights that are no constants"),
        (Op("AveragePool", (), {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}), "uneven padding"),
        (Op("Expand", (whole(2**20, 2**20, 2, 3, 8, 6),)), "larger than the limit"),
        (Op("Tile", (whole(2**20, 2**20, 1, 1),)), "larger than the limit"),
        (Op("Pad", (whole(0, 0, 0, 2**40, 0, 0, 0, 0),)), "larger than the limit"),
        (Op("Reshape", (whole(5, 5),)), "fails in torch"),
        (Op("Dropout", (number(0.5), np.array(True))), "training mode"),
        (Op("Cast", (), {"to": TensorProto.STRING}), "a cast to the type 8"),
    ],
    ids=lambda part: part.kind if isinstance(part, Op) else "",
)
def test_refused_operators(op: Op, words: str) -> None:
    with pytest.raises(Unconverted, match=words):
        to_torch(model_of(op).graph, "x", "y", torch.zeros(IMAGES))


def test_a_constant_output_is_refused() -> None:
    nodes = [helper.make_node("Constant", [], ["y"], value_floats=[1.0, 2.0])]
    with pytest.raises(Unconverted, match="does not depend on its input"):
        to_torch(graph_of(nodes, {}), "x", "y", torch.zeros(IMAGES))
