"""An ONNX graph as a torch module, with gradients and with layers that can be hooked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto
from onnx.helper import get_attribute_value
from onnx.numpy_helper import to_array
from torch import Tensor, nn

from ostiary.models.onnx_ops import KNOWN, MODULES, OPS, Attrs, Result, Unconverted, ints

SHAPED = ("Reshape", "Expand", "ConstantOfShape")
"""Operators whose last input is a shape that may begin with the batch."""
HOST = (*SHAPED, "Pad", "Range", "Slice", "Split", "Squeeze", "Tile", "Unsqueeze")
"""Operators that read their further inputs as numbers, so that these are left where they are."""
TOGETHER = ("Add", "Concat", "Div", "Mul", "Sub", "Where")
"""Operators that bring values of the whole batch together."""
MAKES_FLOATS = ("Cast", "ConstantOfShape", "Range")


@dataclass(slots=True)
class Step:
    """One operator: what it takes and gives by name; `layer` is its module, `done` what nobody needs afterwards."""

    op: str
    attrs: Attrs
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layer: str = ""
    done: tuple[str, ...] = ()


class OnnxGraph(nn.Module):
    """Runs the operators of a graph one after the other; images [n, c, h, w] to whatever the graph gives.

    A graph of a fixed batch takes any number of images: where a shape says `batch`, the number of images is
    put. `mark` is the digest of the file and part of the weights, so that no two graphs have the same digest.
    """

    def __init__(self, source: str, target: str, batch: int | None, mark: bytes) -> None:
        super().__init__()
        self.source, self.target, self.batch = source, target, batch
        self.steps: list[Step] = []
        self.buffer_of: dict[str, str] = {}
        self.fixed: dict[str, Tensor] = {}
        self.register_buffer("mark", torch.frombuffer(bytearray(mark), dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [n, c, h, w] to the graph's output."""
        values = {self.source: x}
        for step in self.steps:
            values |= self.call(step, values, x)
            for name in step.done:
                del values[name]
        return values[self.target]

    def call(self, step: Step, values: Mapping[str, Tensor], x: Tensor) -> dict[str, Tensor]:
        """The outputs of one operator by name; `x` are the images it all began with."""
        inputs = [self._value(name, values) for name in step.inputs]
        if self.batch is not None and self.batch != len(x):
            inputs = _rebatched(step, inputs, self.batch, len(x))
        if x.device.type != "cpu" and any(value is not None and value.device == x.device for value in inputs):
            inputs = [value if value is None or step.op in HOST else value.to(x.device) for value in inputs]
        if step.layer:
            return _named(step, self.get_submodule(step.layer)(inputs[0]), x)
        return _named(step, OPS[step.op](step.attrs, *inputs), x)

    def keep(self, name: str, value: Tensor) -> None:
        """Keep a constant: floating ones move with the weights, whole numbers stay on the CPU as shapes are."""
        if value.is_floating_point():
            self.buffer_of[name] = f"constant_{len(self.buffer_of)}"
            self.register_buffer(self.buffer_of[name], value.clone())
        else:
            self.fixed[name] = value

    def _value(self, name: str, values: Mapping[str, Tensor]) -> Tensor | None:
        if name == "":
            return None
        if name in values:
            return values[name]
        if name in self.buffer_of:
            return self.get_buffer(self.buffer_of[name])
        return self.fixed[name]


def to_torch(
    graph: GraphProto, source: str, target: str, sample: Tensor, *, batch: int | None = None, mark: bytes = bytes(32)
) -> OnnxGraph:
    """The module of a graph with one input and one output, built along a run on `sample` [n, c, h, w].

    What depends on constants alone is computed here. Raises Unconverted with the reason when an operator has no
    form in torch or fails on the sample.
    """
    if missing := sorted({node.op_type for node in graph.node} - KNOWN):
        raise Unconverted(f"it has operators without a form in torch: {', '.join(missing[:5])}")
    builder = _Builder(OnnxGraph(source, target, batch, mark), graph, sample)
    with torch.no_grad():
        for node in graph.node:
            try:
                builder.add(node)
            except Unconverted as error:
                raise Unconverted(f"the operator {node.op_type} '{node.name}' has {error}") from error
            except Exception as error:  # a graph may be anything
                reason = str(error).partition("\n")[0]
                raise Unconverted(f"the operator {node.op_type} '{node.name}' fails in torch: {reason}") from error
    return builder.finish()


class _Builder:
    """Takes the nodes of a graph in order, with the constants known so far and the values on the sample."""

    def __init__(self, module: OnnxGraph, graph: GraphProto, sample: Tensor) -> None:
        self.module, self.sample = module, sample
        self.known = {entry.name: tensor_of(entry) for entry in graph.initializer}
        self.live = {module.source: sample}
        self.users: dict[str, list[NodeProto]] = {}
        self.joined: set[str] = set()
        for node in graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def add(self, node: NodeProto) -> None:
        """Fold a node into the constants or make it a step."""
        if node.output[0] in self.joined:
            return
        attrs = {entry.name: _attribute(entry) for entry in node.attribute}
        attrs["outputs"] = len(node.output)
        if node.op_type == "Constant":
            self.known[node.output[0]] = _constant(attrs)
            return
        step = Step(node.op_type, attrs, tuple(node.input), tuple(node.output))
        if not any(name in self.live for name in node.input):
            if step.op not in OPS:
                raise Unconverted("an input that is a constant")
            inputs = [self.known[name] if name else None for name in node.input]
            self.known |= _named(step, OPS[step.op](attrs, *inputs), self.sample)
            return
        if node.op_type in MODULES and all(name in self.known for name in node.input[1:] if name):
            self._make_layer(step)
        if not step.layer and step.op not in OPS:
            raise Unconverted("weights that are no constants")
        for name in step.inputs:
            if name in self.known and name not in self.module.buffer_of:
                self.module.keep(name, self.known[name])
        self.module.steps.append(step)
        self.live |= self.module.call(step, self.live, self.sample)

    def _make_layer(self, step: Step) -> None:
        rest = [self.known[name] if name else None for name in step.inputs[1:]]
        bias = self._bias_of(step) if step.op == "MatMul" else None
        if bias is not None:
            rest.append(self.known[bias[0]])
        layer = MODULES[step.op](step.attrs, self.live[step.inputs[0]], *rest)
        if layer is None:
            return
        step.layer = f"{step.op.lower()}_{len(self.module.steps)}"
        self.module.add_module(step.layer, layer)
        step.inputs, step.outputs = step.inputs[:1], step.outputs[:1]
        if bias is not None:
            step.outputs = (bias[1],)
            self.joined.add(bias[1])

    def _bias_of(self, step: Step) -> tuple[str, str] | None:
        """The constant that is added to a product with a weight, and the name of the sum."""
        weight, users = self.known[step.inputs[1]], self.users.get(step.outputs[0], [])
        if len(users) != 1 or users[0].op_type != "Add" or step.outputs[0] == self.module.target:
            return None
        other = next((name for name in users[0].input if name != step.outputs[0]), "")
        fits = other in self.known and weight.dim() == 2 and self.known[other].shape == weight.shape[1:]
        return (other, users[0].output[0]) if fits else None

    def finish(self) -> OnnxGraph:
        """The module, with every value noted where it is used last."""
        if self.module.target not in self.live:
            raise Unconverted("its output does not depend on its input")
        used = {self.module.target}
        for step in reversed(self.module.steps):
            names = {name for name in (*step.inputs, *step.outputs) if name in self.live}
            step.done = tuple(sorted(names - used))
            used |= names
        return self.module.eval()


def tensor_of(entry: TensorProto) -> Tensor:
    """A tensor of the file; every floating type becomes float32. Raises Unconverted for text and narrow types."""
    array = to_array(entry)
    if array.dtype.kind not in "biuf":
        if "float" not in array.dtype.name:
            raise Unconverted(f"its tensor '{entry.name}' is of the type {array.dtype.name}")
        array = array.astype("float32")
    tensor = torch.tensor(array)
    return tensor.float() if tensor.is_floating_point() else tensor


def _attribute(entry: AttributeProto) -> Any:
    value = get_attribute_value(entry)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return tensor_of(value) if isinstance(value, TensorProto) else value


def _constant(attrs: Attrs) -> Tensor:
    for name, kind in (("value_float", torch.float32), ("value_floats", torch.float32)):
        if name in attrs:
            return torch.tensor(attrs[name], dtype=kind)
    for name in ("value_int", "value_ints"):
        if name in attrs:
            return torch.tensor(attrs[name], dtype=torch.int64)
    if not isinstance(attrs.get("value"), Tensor):
        raise Unconverted("no plain value")
    value: Tensor = attrs["value"]
    return value


def _named(step: Step, result: Result, x: Tensor) -> dict[str, Tensor]:
    results = result if isinstance(result, tuple) else (result,)
    if step.op in MAKES_FLOATS:
        results = tuple(value.to(x.dtype) if value.is_floating_point() else value for value in results)
    return {name: value for name, value in zip(step.outputs, results, strict=False) if name}


def _rebatched(step: Step, inputs: list[Tensor | None], batch: int, n: int) -> list[Tensor | None]:
    """The inputs of an operator with `n` in place of a batch that the file fixed."""
    last = inputs[-1] if inputs else None
    if step.op in SHAPED and last is not None and last.numel() and ints(last)[0] == batch:
        return [*inputs[:-1], torch.cat([torch.tensor([n]), last[1:]])]
    rank = max((value.dim() for value in inputs if value is not None), default=0)
    whole = [value.shape[0] for value in inputs if value is not None and value.dim() == rank > 0]
    along = step.attrs["axis"] % rank if step.op == "Concat" else 1
    if step.op in TOGETHER and along and n in whole and batch in whole:
        # A class token, say, which was laid out for the fixed batch and is alike for every image.
        return [_alike(value, n) if value is not None and value.shape[:1] == (batch,) else value for value in inputs]
    return inputs


def _alike(value: Tensor, n: int) -> Tensor:
    return value[:1].expand(n, *value.shape[1:])
