"""The operators of ONNX that image classifiers are made of, as torch functions and modules."""

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MAX_VALUES = 2**31
FLOATS = (1, 10, 11, 16)
"""The numbers of float, float16, double and bfloat16 in ONNX; all of them are float32 here."""
INTEGERS = {2: torch.uint8, 3: torch.int8, 6: torch.int32, 7: torch.int64, 9: torch.bool}

Attrs = dict[str, Any]
Result = Tensor | tuple[Tensor, ...]
Op = Callable[..., Result]


class Unconverted(Exception):
    """Why a graph has no form in torch."""


def ints(values: Tensor) -> list[int]:
    """A tensor of integers as a list."""
    return [int(value) for value in values.reshape(-1).tolist()]


def bounded(shape: list[int]) -> list[int]:
    """`shape`, unless it has more than `MAX_VALUES` values: a few bytes of a file may ask for terabytes."""
    if math.prod(shape) > MAX_VALUES:
        raise Unconverted(f"a tensor of {'x'.join(map(str, shape))} values is larger than the limit")
    return shape


def pads_of(a: Attrs, x: Tensor, kernel: list[int]) -> tuple[int, int, int, int]:
    """Top, left, bottom and right padding of a convolution or a pooling of the images `x`."""
    auto = a.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        top, left, bottom, right = a.get("pads", [0] * 4) if auto == "NOTSET" else [0] * 4
        return top, left, bottom, right
    sides = []
    for size, k, step, spread in zip(
        x.shape[2:], kernel, a.get("strides", [1, 1]), a.get("dilations", [1, 1]), strict=True
    ):
        whole = max((-(-size // step) - 1) * step + (k - 1) * spread + 1 - size, 0)
        small, large = whole // 2, whole - whole // 2
        sides.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return sides[0][0], sides[1][0], sides[0][1], sides[1][1]


def _filled(module: nn.Module, **values: Tensor | None) -> nn.Module:
    """A module from the meta device with its weights put in; no random number is drawn."""
    state = {name: value.detach().clone() for name, value in values.items() if value is not None}
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        state["num_batches_tracked"] = torch.tensor(0)
    module.load_state_dict(state, assign=True)
    return module.eval()


def conv(a: Attrs, x: Tensor, w: Tensor, b: Tensor | None = None) -> nn.Module:
    """A Conv2d, behind a ZeroPad2d where the padding is not alike on both sides."""
    if w.dim() != 4:
        raise Unconverted(f"a convolution over {w.dim() - 2} axes")
    kernel = list(w.shape[2:])
    top, left, bottom, right = pads_of(a, x, kernel)
    even, group = (top, left) == (bottom, right), a.get("group", 1)
    layer = _filled(
        nn.Conv2d(
            w.shape[1] * group,
            w.shape[0],
            (kernel[0], kernel[1]),
            tuple(a.get("strides", [1, 1])),
            (top, left) if even else 0,
            tuple(a.get("dilations", [1, 1])),
            group,
            bias=b is not None,
            device="meta",
        ),
        weight=w,
        bias=b,
    )
    return layer if even else nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), layer)


def linear(a: Attrs, x: Tensor, w: Tensor, b: Tensor | None = None) -> nn.Module | None:
    """A Linear for a Gemm or a MatMul with a weight of two axes; None for other products."""
    if w.dim() != 2 or a.get("transA"):
        return None
    weight = (w if a.get("transB") else w.T) * a.get("alpha", 1.0)
    bias = None if b is None else (b * a.get("beta", 1.0)).expand(1, len(weight)).reshape(-1)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=b is not None, device="meta")
    return _filled(layer, weight=weight.contiguous(), bias=bias)


def batch_norm(a: Attrs, x: Tensor, w: Tensor, b: Tensor, mean: Tensor, var: Tensor) -> nn.Module:
    """A BatchNorm2d, or a BatchNorm1d behind a flattening."""
    if a.get("training_mode"):
        raise Unconverted("a batch normalisation in training mode")
    kind = nn.BatchNorm2d if x.dim() == 4 else nn.BatchNorm1d
    layer = kind(len(w), a.get("epsilon", 1e-5), device="meta")
    return _filled(layer, weight=w, bias=b, running_mean=mean, running_var=var)


def layer_norm(a: Attrs, x: Tensor, w: Tensor, b: Tensor | None = None) -> nn.Module | None:
    """A LayerNorm where the scale has the normalised axes, else None."""
    shape = list(x.shape[a.get("axis", -1) :])
    if list(w.shape) != shape or (b is not None and list(b.shape) != shape):
        return None
    layer = nn.LayerNorm(shape, a.get("epsilon", 1e-5), bias=b is not None, device="meta")
    return _filled(layer, weight=w, bias=b)


MODULES: dict[str, Callable[..., nn.Module | None]] = {
    "Conv": conv,
    "Gemm": linear,
    "MatMul": linear,
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
}
"""Operators that become modules where all their inputs but the first are constants, so that they can be hooked."""


def _gemm(a: Attrs, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    x, w = (x.T if a.get("transA") else x), (w.T if a.get("transB") else w)
    alpha, beta = float(a.get("alpha", 1.0)), float(a.get("beta", 1.0))
    return torch.matmul(x, w) * alpha if b is None else torch.matmul(x, w) * alpha + b * beta


def _max_pool(a: Attrs, x: Tensor) -> Tensor:
    top, left, bottom, right = pads_of(a, x, a["kernel_shape"])
    x = F.pad(x, (left, right, top, bottom), value=float("-inf"))
    return F.max_pool2d(
        x, a["kernel_shape"], a.get("strides", [1, 1]), 0, a.get("dilations", [1, 1]), bool(a.get("ceil_mode", 0))
    )


def _average_pool(a: Attrs, x: Tensor) -> Tensor:
    top, left, bottom, right = pads_of(a, x, a["kernel_shape"])
    counted, even = bool(a.get("count_include_pad", 0)), (top, left) == (bottom, right)
    if not even and not counted:
        raise Unconverted("an average pooling with uneven padding")
    if not even:
        x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
    ceil = bool(a.get("ceil_mode", 0))
    return F.avg_pool2d(x, a["kernel_shape"], a.get("strides", [1, 1]), (top, left), ceil, counted)


def _axes(a: Attrs, given: Tensor | None) -> list[int]:
    """Axes are an attribute in old graphs and an input in new ones; none means all."""
    return list(a.get("axes", [])) if given is None else ints(given)


def _reduce(how: Callable[..., Tensor]) -> Op:
    def op(a: Attrs, x: Tensor, axes: Tensor | None = None) -> Tensor:
        over = _axes(a, axes)
        if not over and a.get("noop_with_empty_axes"):
            return x
        return how(x, dim=over or list(range(x.dim())), keepdim=bool(a.get("keepdims", 1)))

    return op


def _reshape(a: Attrs, x: Tensor, shape: Tensor) -> Tensor:
    sizes = ints(shape)
    if not a.get("allowzero"):
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(a: Attrs, x: Tensor) -> Tensor:
    axis = a.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _squeeze(a: Attrs, x: Tensor, axes: Tensor | None = None) -> Tensor:
    over = _axes(a, axes)
    return x.squeeze(tuple(over)) if over else x.squeeze()


def _unsqueeze(a: Attrs, x: Tensor, axes: Tensor | None = None) -> Tensor:
    over = _axes(a, axes)
    rank = x.dim() + len(over)
    for axis in sorted(axis % rank for axis in over):
        x = x.unsqueeze(axis)
    return x


def _slice(a: Attrs, x: Tensor, *parts: Tensor | None) -> Tensor:
    if parts:
        starts, ends, axes, steps = (None if part is None else ints(part) for part in (*parts, None, None)[:4])
    else:
        starts, ends, axes, steps = a["starts"], a["ends"], a.get("axes"), None
    assert starts is not None and ends is not None  # noqa: S101 - tells the type checker
    for at, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis, step = (axes[at] if axes else at), (steps[at] if steps else 1)
        rows = range(x.shape[axis])[start:end:step] if step > 0 else range(x.shape[axis])[_reversed(start, end, step)]
        x = x.index_select(axis, torch.tensor(list(rows), dtype=torch.int64, device=x.device))
    return x


def _reversed(start: int, end: int, step: int) -> slice:
    """A slice backwards, whose end far below zero means that the first is taken too."""
    return slice(start, None if end < -(2**30) else end, step)


def _split(a: Attrs, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = a.get("axis", 0)
    parts = a.get("split") if sizes is None else ints(sizes)
    return torch.split(x, parts or -(-x.shape[axis] // a["outputs"]), axis)


def _gather(a: Attrs, x: Tensor, index: Tensor) -> Tensor:
    axis = a.get("axis", 0) % x.dim()
    size = x.shape[axis]
    index = torch.where(index < 0, index + size, index).long()
    taken = x.index_select(axis, index.reshape(-1))
    return taken.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


def _expand(a: Attrs, x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(bounded(list(torch.broadcast_shapes(tuple(ints(shape)), x.shape))))


def _constant_of_shape(a: Attrs, shape: Tensor) -> Tensor:
    value = a.get("value")
    sizes = bounded(ints(shape))
    return torch.zeros(sizes) if value is None else value.reshape(-1)[0].expand(sizes).clone()


def _tile(a: Attrs, x: Tensor, repeats: Tensor) -> Tensor:
    times = ints(repeats)
    bounded([size * n for size, n in zip(x.shape, times, strict=True)])
    return x.repeat(times)


def _range(a: Attrs, start: Tensor, end: Tensor, step: Tensor) -> Tensor:
    first, last, by = start.item(), end.item(), step.item()
    bounded([max(0, math.ceil((last - first) / by))])
    return torch.arange(first, last, by, dtype=start.dtype)


def _pad(a: Attrs, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Any = None) -> Tensor:
    sides = list(a["pads"]) if pads is None else ints(pads)
    over = ints(axes) if axes is not None else list(range(x.dim()))
    before_after = [(0, 0)] * x.dim()
    for at, axis in enumerate(over):
        before_after[axis] = (sides[at], sides[at + len(over)])
    bounded([size + sum(pair) for size, pair in zip(x.shape, before_after, strict=True)])
    flat = [side for pair in reversed(before_after) for side in pair]
    mode = a.get("mode", "constant")
    if mode == "constant":
        return F.pad(x, flat, value=a.get("value", 0.0) if value is None else value.item())
    if any(flat[4:]):
        raise Unconverted(f"a padding '{mode}' of more than two axes")
    return F.pad(x, flat[:4], {"edge": "replicate", "reflect": "reflect"}[mode])


def _cast(a: Attrs, x: Tensor, *_: Any) -> Tensor:
    to = a["to"]
    if to in FLOATS:
        return x if x.is_floating_point() else x.float()
    if to not in INTEGERS:
        raise Unconverted(f"a cast to the type {to}")
    return x.to(INTEGERS[to])


def _clip(a: Attrs, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    if low is not None or high is not None:
        return torch.clamp(x, low, high)
    return x.clamp(a.get("min"), a.get("max")) if "min" in a or "max" in a else x


def _dropout(a: Attrs, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None) -> Tensor:
    if training is not None and bool(training):
        raise Unconverted("a dropout in training mode")
    return x


def _divide(a: Attrs, x: Tensor, y: Tensor) -> Tensor:
    whole = not x.is_floating_point() and not y.is_floating_point()
    return torch.div(x, y, rounding_mode="trunc") if whole else x / y


def _layer_norm(a: Attrs, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    normal = F.layer_norm(x, list(x.shape[a.get("axis", -1) :]), eps=a.get("epsilon", 1e-5)) * w
    return normal if b is None else normal + b


def _plain(function: Callable[..., Tensor]) -> Op:
    """An operator without attributes."""
    return lambda a, *x: function(*x)


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Op:
    """An operator of any number of inputs."""
    return lambda a, *x: reduce(function, x)


PLAIN: dict[str, Callable[..., Tensor]] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "And": torch.logical_and,
    "Ceil": torch.ceil,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "HardSwish": F.hardswish,
    "Identity": lambda x: x,
    "IsNaN": torch.isnan,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "MatMul": torch.matmul,
    "Mish": F.mish,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "PRelu": lambda x, slope: torch.where(x < 0, x * slope, x),
    "Pow": torch.pow,
    "Reciprocal": torch.reciprocal,
    "Relu": F.relu,
    "Sigmoid": torch.sigmoid,
    "Softplus": F.softplus,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tanh": torch.tanh,
    "Where": torch.where,
}

OPS: dict[str, Op] = {
    **{name: _plain(function) for name, function in PLAIN.items()},
    "AveragePool": _average_pool,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda a, *x: torch.cat(x, a["axis"]),
    "ConstantOfShape": _constant_of_shape,
    "Div": _divide,
    "Dropout": _dropout,
    "Elu": lambda a, x: F.elu(x, a.get("alpha", 1.0)),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": lambda a, x: F.gelu(x, approximate=a.get("approximate", "none")),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda a, x: x.mean(tuple(range(2, x.dim())), keepdim=True),
    "GlobalMaxPool": lambda a, x: x.amax(tuple(range(2, x.dim())), keepdim=True),
    "HardSigmoid": lambda a, x: (a.get("alpha", 0.2) * x + a.get("beta", 0.5)).clamp(0, 1),
    "InstanceNormalization": lambda a, x, w, b: F.instance_norm(x, None, None, w, b, eps=a.get("epsilon", 1e-5)),
    "LRN": lambda a, x: F.local_response_norm(
        x, a["size"], a.get("alpha", 1e-4), a.get("beta", 0.75), a.get("bias", 1.0)
    ),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "LogSoftmax": lambda a, x: F.log_softmax(x, a.get("axis", -1)),
    "Max": _folded(torch.maximum),
    "MaxPool": _max_pool,
    "Min": _folded(torch.minimum),
    "Mod": lambda a, x, y: torch.fmod(x, y) if a.get("fmod") else torch.remainder(x, y),
    "Pad": _pad,
    "Range": _range,
    "ReduceL2": _reduce(torch.linalg.vector_norm),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceSum": _reduce(torch.sum),
    "Reshape": _reshape,
    "Shape": lambda a, x: torch.tensor(list(x.shape)[a.get("start", 0) : a.get("end")], dtype=torch.int64),
    "Slice": _slice,
    "Softmax": lambda a, x: F.softmax(x, a.get("axis", -1)),
    "Split": _split,
    "Squeeze": _squeeze,
    "Sum": _folded(torch.add),
    "Tile": _tile,
    "Transpose": lambda a, x: x.permute(a.get("perm") or list(reversed(range(x.dim())))),
    "Unsqueeze": _unsqueeze,
}
"""Every operator that can be turned into torch, besides `MODULES`; attributes come first, then the inputs."""

KNOWN = frozenset({*OPS, *MODULES, "Constant"})
