"""An ONNX file, read and checked before anything in it is run."""

import contextlib
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, TensorProto
from onnx.external_data_helper import load_external_data_for_tensor
from torch import Tensor

from ostiary.core.errors import FormatError, ModelError
from ostiary.models.checkpoint import AGAIN, check_finite, first_bytes
from ostiary.models.onnx_graph import tensor_of
from ostiary.models.onnx_ops import MAX_VALUES, Unconverted

MAX_BYTES = 2**31 - 1
"""What protobuf can hold; the weights beside the file count too."""
DOMAINS = ("", "ai.onnx", "com.microsoft")
"""Operators of these come with onnxruntime; any other domain is somebody's own code."""
IMAGE_TYPES = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.DOUBLE: "float64"}
Sides = tuple[int | None, int | None, int | None]
EXPORT = "export the model again, e.g. torch.onnx.export(model.eval(), images, 'model.onnx')"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxFile:
    """A graph that takes one batch of images and gives one tensor.

    `content` is the model with all its weights, as onnxruntime takes it; `shape` is (c, h, w) with None where the
    file leaves it open, `batch` the number of images it fixes (or None), `dtype` the NumPy type it takes, `digest`
    the SHA-256 of its bytes and of the files beside it.
    """

    model: ModelProto
    content: bytes
    source: str
    target: str
    shape: Sides
    batch: int | None
    dtype: str
    digest: bytes


def read_onnx(path: Path) -> OnnxFile:
    """The model in an ONNX file, with the weights that lie in files beside it.

    Raises FormatError when the file is missing, damaged or larger than `MAX_BYTES`, or names data elsewhere than in
    its own folder; ModelError when it holds operators of another domain, control flow, weights that are no numbers,
    several inputs or outputs, or takes something else than images [n, c, h, w] of floats.
    """
    first_bytes(path, MAX_BYTES)
    content = path.read_bytes()
    digest = hashlib.sha256(content)
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise FormatError(f"'{path.name}' is no ONNX model, or a damaged one: {error}", hint=AGAIN) from error
    if not model.graph.node:
        raise FormatError(f"'{path.name}' is no ONNX model, or one without operators", hint=AGAIN)
    _refuse_code(model, path.name)
    if _read_beside(model, path, len(content), digest):
        content = model.SerializeToString()
    _check(content, path.name)
    _check_weights(model, path.name)
    source, batch, shape, dtype = _images(model, path.name)
    return OnnxFile(
        model=model,
        content=content,
        source=source,
        target=_the_one(list(model.graph.output), "output", path.name).name,
        shape=shape,
        batch=batch,
        dtype=dtype,
        digest=digest.digest(),
    )


def _refuse_code(model: ModelProto, where: str) -> None:
    if strange := sorted({node.domain for node in model.graph.node} - set(DOMAINS)):
        used = sorted({node.op_type for node in model.graph.node if node.domain == strange[0]})
        raise ModelError(
            f"OS101 not examined: '{where}' has operators of '{strange[0]}' ({', '.join(used[:3])}), "
            "which need code of its own",
            hint="export the model with operators of ONNX alone",
        )
    if model.functions:
        raise ModelError(
            f"OS101 not examined: '{where}' defines {len(model.functions)} functions of its own",
            hint="inline them: onnx.inliner.inline_local_functions",
        )
    for node in model.graph.node:
        if any(entry.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for entry in node.attribute):
            raise ModelError(
                f"OS101 not examined: '{where}' has control flow ({node.op_type} '{node.name}')",
                hint=EXPORT + ", from a model without loops and conditions",
            )
    if model.graph.sparse_initializer:
        raise ModelError(f"OS101 not examined: '{where}' has sparse weights", hint="store them dense")


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for entry in node.attribute:
            if entry.type == AttributeProto.TENSOR:
                yield entry.t
            yield from entry.tensors


def _read_beside(model: ModelProto, path: Path, size: int, digest: Any) -> bool:
    """Read the weights that lie in files of their own, beside the model and nowhere else; True when there are any."""
    outside = [tensor for tensor in _tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    total, seen = size, set()
    for tensor in outside:
        said = {entry.key: entry.value for entry in tensor.external_data}
        location = said.get("location", "")
        file = path.parent / location
        if not location or Path(location).name != location or location == ".." or file.is_symlink():
            raise FormatError(
                f"'{path.name}' keeps '{tensor.name}' in {location!r}, which is not a file beside it",
                hint="only weights in the model's own folder are read; save it in one file with onnx.save_model",
            )
        if not file.is_file():
            raise FormatError(f"'{path.name}' keeps its weights in '{location}', which is not there", hint=AGAIN)
        if location not in seen:
            first_bytes(file, MAX_BYTES)
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
            seen.add(location)
        length = said.get("length", "")
        total += int(length) if length.isdecimal() else file.stat().st_size
        if total > MAX_BYTES:
            raise FormatError(f"'{path.name}' and the weights beside it are more than the limit of {MAX_BYTES} bytes")
    for tensor in outside:
        try:
            load_external_data_for_tensor(tensor, str(path.parent))
        except (onnx.checker.ValidationError, OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise FormatError(f"'{path.name}' cannot be read: '{tensor.name}': {reason}", hint=AGAIN) from error
    return bool(outside)


def _check(content: bytes, where: str) -> None:
    try:
        onnx.checker.check_model(content)
    except (onnx.checker.ValidationError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FormatError(f"'{where}' is a damaged ONNX model: {reason}", hint=AGAIN) from error
    known = ModelProto()
    with contextlib.suppress(onnx.shape_inference.InferenceError, ValueError):
        known = onnx.shape_inference.infer_shapes(content, data_prop=True)
    for value in (*known.graph.value_info, *known.graph.output):
        sides = [max(side.dim_value, 1) for side in value.type.tensor_type.shape.dim]
        if math.prod(sides) > MAX_VALUES:
            raise ModelError(
                f"'{where}' makes a tensor of {'x'.join(map(str, sides))} values ('{value.name}'), "
                f"more than the limit of {MAX_VALUES}",
                hint="the file is damaged or means harm; ask its author",
            )


def _check_weights(model: ModelProto, where: str) -> None:
    for entry in model.graph.initializer:
        try:
            tensor: Tensor = tensor_of(entry)
        except Unconverted:  # onnxruntime may know the type
            continue
        except Exception as error:  # dimensions, type and bytes need not fit together
            raise FormatError(f"'{where}' is damaged: '{entry.name}' cannot be read: {error}", hint=AGAIN) from error
        # A single infinity may well be meant, as the mask of an attention is.
        if tensor.is_floating_point() and tensor.numel() > 1:
            check_finite({entry.name: tensor}, where)


def _images(model: ModelProto, where: str) -> tuple[str, int | None, Sides, str]:
    """Name, batch, channels x height x width and type of the one input."""
    weights = {entry.name for entry in model.graph.initializer}
    given = _the_one([entry for entry in model.graph.input if entry.name not in weights], "input", where)
    form = given.type.tensor_type
    if form.elem_type not in IMAGE_TYPES:
        kind = TensorProto.DataType.Name(form.elem_type).lower() if form.elem_type else "no tensor"
        raise ModelError(
            f"'{where}' takes '{given.name}' of the type {kind}, not floats",
            hint="export it without the conversion from bytes: images are floats in [0, 1]",
        )
    sides = [side.dim_value if side.dim_value > 0 else None for side in form.shape.dim]
    shown = "x".join("?" if side is None else str(side) for side in sides) or "unknown form"
    if len(sides) != 4:
        raise ModelError(
            f"'{where}' takes '{given.name}' of {shown}, not images (n x channels x height x width)", hint=EXPORT
        )
    if sides[3] in (1, 3) and sides[1] not in (None, 1, 3):
        raise ModelError(
            f"'{where}' takes '{given.name}' of {shown}: its channels are last",
            hint="convert it with channels first, e.g. tf2onnx --inputs-as-nchw",
        )
    return given.name, sides[0], (sides[1], sides[2], sides[3]), IMAGE_TYPES[form.elem_type]


def _the_one(entries: list[Any], what: str, where: str) -> Any:
    if len(entries) != 1:
        names = ", ".join(f"'{entry.name}'" for entry in entries[:4]) or "none"
        raise ModelError(
            f"'{where}' has {len(entries)} {what}s ({names}), not one",
            hint="an image classifier takes images and gives logits; export that part alone",
        )
    return entries[0]
