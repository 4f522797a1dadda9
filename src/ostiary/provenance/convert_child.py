"""The child process of `convert`: gives up what it does not need, reads weights only, writes safetensors.

It gets an order as JSON on stdin and answers with JSON on stdout; the source and the output are open descriptors.
"""

import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

from ostiary.provenance import confine


def main() -> None:
    """Do what the order on stdin says, and print the answer."""
    order = json.loads(sys.stdin.read())
    confine.leave_network()
    confine.hide_files()
    try:
        answer = _rewrite(order)
    except Exception as error:  # noqa: BLE001 - whatever torch raises is the reason of the refusal
        text = str(error).partition("\n")[0] or type(error).__name__
        answer = {"error": text[:500]}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()


def _rewrite(order: dict[str, Any]) -> dict[str, Any]:
    # All that reading and writing need is imported before the limits and the hook.
    import numpy as np
    import torch

    from ostiary.models.checkpoint import find_state
    from ostiary.provenance.tensors import DTYPES

    types = {kind: name for name, kind in DTYPES.items()}
    handle = order["source"]
    with torch.serialization.safe_globals(_numpy_parts(np)):
        torch.load(_warm_up(torch), weights_only=True)
        confine.limit(order["memory"], order["written"], order["seconds"])
        confine.watch(handle)
        loaded = torch.load(*_source(handle), map_location="cpu", weights_only=True, mmap=_mapped(handle))
    under: list[str] = []
    state = find_state("the file", _tensors(loaded, torch, np), under)
    written = write(state, order["metadata"], order["out"], types, torch)
    return {"tensors": len(state), "bytes": written, "under": under}


def _numpy_parts(np: Any) -> list[Any]:
    """What arrays of numbers consist of; the inspection has checked what they are given."""
    kinds = [type(np.dtype(code)) for code in ("?", *"bBhHiIlLqQefdFD")]
    from numpy._core.multiarray import _reconstruct, scalar

    old = [(one, f"numpy.core.multiarray.{one.__name__}") for one in (_reconstruct, scalar)]
    return [_reconstruct, scalar, *old, np.ndarray, np.dtype, *dict.fromkeys(kinds)]


def _warm_up(torch: Any) -> Any:
    import io

    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(1)}, buffer)
    buffer.seek(0)
    return buffer


def _mapped(handle: int) -> bool:
    """Whether the source can be mapped, which takes no memory of its own: a zip archive, on Linux."""
    return os.pread(handle, 4, 0) == b"PK\x03\x04" and Path(f"/proc/self/fd/{handle}").exists()


def _source(handle: int) -> tuple[Any]:
    if _mapped(handle):
        return (f"/proc/self/fd/{handle}",)
    os.lseek(handle, 0, os.SEEK_SET)
    return (os.fdopen(handle, "rb", closefd=False),)


def _tensors(loaded: Any, torch: Any, np: Any, depth: int = 3) -> Any:
    """What was loaded, with arrays as tensors where a state dict may lie."""
    if isinstance(loaded, dict) and depth:
        return {key: _tensors(one, torch, np, depth - 1) for key, one in loaded.items()}
    if isinstance(loaded, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(loaded, loaded.dtype.newbyteorder("=")))
    return loaded


def write(state: dict[str, Any], metadata: dict[str, str], out: int, types: dict[Any, str], torch: Any) -> int:
    """Write tensors as safetensors to the descriptor `out`, one after the other; the bytes of all tensors.

    Wide number types come first, so that every tensor begins at a multiple of its width. Raises TypeError for a
    tensor that safetensors has no type for.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    order = sorted(state, key=lambda name: (-state[name].element_size(), name))
    at = 0
    for name in order:
        tensor = state[name]
        if tensor.layout != torch.strided or tensor.dtype not in types or tensor.is_meta:
            raise TypeError(f"{name!r} is of type {tensor.dtype}, {tensor.layout}, which safetensors does not have")
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": types[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with os.fdopen(out, "wb", closefd=False) as stream:
        stream.write(struct.pack("<Q", len(raw)) + raw)
        for name in order:
            flat = state[name].detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
            stream.write(memoryview(flat.view(torch.uint8).numpy()))
    return at


if __name__ == "__main__":
    main()
