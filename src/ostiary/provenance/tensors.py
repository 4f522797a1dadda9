"""Tensors made of bytes that were verified, without a copy and without a file."""

import io
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ostiary.core.errors import FormatError
from ostiary.models.checkpoint import find_state
from ostiary.provenance.files import shown
from ostiary.provenance.policy import Rules
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.safetensors_header import Header, read_header

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
Parts = Mapping[str, Mapping[str, Tensor]]


def read_tensors(files: Mapping[str, memoryview], checkpoints: Sequence[str], rules: Rules) -> Parts:
    """The tensors of each file of weights, by file and name; `checkpoints` count only where no safetensors are.

    Those of safetensors lie in the given buffers themselves. Raises Refused: more tensors than the rules allow
    (OS764), one name in two files (OS763), a checkpoint that torch does not read as weights (OS769).
    """
    found: dict[str, Mapping[str, Tensor]] = {
        name: _of_safetensors(data, read_header(data, shown(name)))
        for name, data in files.items()
        if name.endswith(".safetensors")
    }
    if not found:
        found = {name: _of_checkpoint(name, files[name]) for name in checkpoints}
    seen: set[str] = set()
    for name, part in found.items():
        if twice := seen & set(part):
            raise Refused([Reason("OS763", shown(name), f"the tensor {min(twice)[:80]!r} is in another file, too")])
        seen |= set(part)
    if len(seen) > rules.limits.max_tensors:
        raise Refused([Reason("OS764", "model", f"it has more than {rules.limits.max_tensors} tensors")])
    return found


def value_reasons(parts: Parts) -> list[Reason]:
    """Reasons (OS762) for tensors that hold NaN or infinity."""
    return [
        Reason("OS762", shown(file), f"the tensor {name[:80]!r} holds NaN or infinity")
        for file, part in parts.items()
        for name, tensor in part.items()
        if not _finite(tensor)
    ]


def _finite(tensor: Tensor) -> bool:
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.element_size() == 1:
        tensor = tensor.to(torch.float32)
    # One pass and no mask: NaN and infinity both show in the ends.
    low, high = torch.aminmax(tensor)
    return bool(low.isfinite() and high.isfinite())


def _of_safetensors(data: memoryview, header: Header) -> Mapping[str, Tensor]:
    made = {}
    for name, entry in header.tensors.items():
        dtype = DTYPES.get(entry.dtype)
        if dtype is None:
            raise FormatError(f"the tensor '{name[:80]}' is of type {entry.dtype}, for which torch has none")
        if entry.begin == entry.end:
            made[name] = torch.empty(entry.shape, dtype=dtype)
            continue
        part = data[entry.begin : entry.end]
        if entry.begin % dtype.itemsize:
            part = memoryview(bytearray(part))
        made[name] = torch.frombuffer(part, dtype=dtype).reshape(entry.shape)
    return made


def _of_checkpoint(name: str, data: memoryview) -> Mapping[str, Tensor]:
    try:
        return find_state(name, torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
    except FormatError:
        raise
    except Exception as error:  # torch raises almost anything for damaged files
        text = str(error).partition("\n")[0][:120]
        raise Refused([Reason("OS769", shown(name), f"torch does not read it as weights: {text}")]) from error
