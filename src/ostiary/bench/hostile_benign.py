"""Benign files of the hostile-file kit: what torch, NumPy and safetensors write, and the twins of hostile files."""

import io
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from ostiary.bench.hostile import BenignFile
from ostiary.bench.hostile_pieces import (
    ORDERED,
    PROTO2,
    PROTO4,
    STOP,
    WEIGHTS,
    Part,
    Raw,
    call,
    name,
    npy,
    old_layout,
    pack,
    push,
    safetensors,
    state,
    tensor,
    text,
    torch_zip,
)


def _torch(content: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **how)
    return buffer.getvalue()


def _saved(write: Any, *args: Any, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    write(buffer, *args, **arrays)
    return buffer.getvalue()


def _network() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A small network with what training leaves behind in its optimiser."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    optimiser = torch.optim.AdamW(network.parameters())
    network(torch.ones(4, 3)).sum().backward()
    optimiser.step()
    return network, optimiser


def saved() -> Iterator[BenignFile]:
    """Files as the programs write them that people save weights with."""
    network, optimiser = _network()
    weights = network.state_dict()
    w = torch.arange(12.0).reshape(3, 4)
    checkpoint = {"epoch": 3, "loss": 0.5, "model": weights, "optimizer": optimiser.state_dict(), "note": "kit"}
    plain = {"a": np.ones((2, 3)), "b": np.float32(1), "c": [1, 2**80, (1, -2)], "d": None, "e": True, "f": b"kit"}
    yield BenignFile("state-dict.pt", _torch(weights), True)
    yield BenignFile("state-dict-old.pth", _torch(weights, _use_new_zipfile_serialization=False), True)
    yield BenignFile("checkpoint.ckpt", _torch(checkpoint), True)
    yield BenignFile("checkpoint-old.ckpt", _torch(checkpoint, _use_new_zipfile_serialization=False), True)
    yield BenignFile("ordered.bin", _torch(OrderedDict(weights)), True)
    yield BenignFile("bfloat16.pt", _torch({name: one.bfloat16() for name, one in weights.items()}), True)
    yield BenignFile("types.pt", _torch({str(kind): w.to(kind) for kind in _KINDS}), True)
    yield BenignFile("tied.pt", _torch({"embed": w, "head": w, "row": w[1]}), True)
    yield BenignFile(
        "shapes.pt", _torch({"empty": w[:0], "number": w[0, 0].clone(), "turned": w.t(), "every-2nd": w[:, ::2]}), True
    )
    yield BenignFile("parameters.pt", _torch(dict(network.named_parameters())), True)
    yield BenignFile("arrays.pt", _torch({"w": w, "a": np.ones((2, 3), "f4")}), True)
    yield BenignFile("values.pt", _torch({"model": weights, "size": w.shape, "type": w.dtype, "on": w.device}), True)
    yield BenignFile(
        "safetensors.safetensors", save({"w": w, "empty": w[:0].clone(), "b": w.bfloat16()}, {"a": "b"}), False
    )
    for protocol in range(6):
        yield BenignFile(f"arrays-protocol-{protocol}.pkl", pickle.dumps(plain, protocol), False)
    yield BenignFile("array.npy", _saved(np.save, np.ones((2, 3))), False)
    yield BenignFile("text.npy", _saved(np.save, np.array(["a", "bc"])), False)
    yield BenignFile("number.npy", _saved(np.save, np.float32(1)), False)
    yield BenignFile("arrays.npz", _saved(np.savez, x=np.ones((2, 3)), y=np.arange(4)), False)
    yield BenignFile("arrays-packed.npz", _saved(np.savez_compressed, x=np.ones((2, 3)), y=np.arange(4)), False)


_KINDS = (
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.bool,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
)


def twins() -> Iterator[BenignFile]:
    """Hand-made files like the hostile ones but for what is wrong with these."""
    dtype = call("numpy", "dtype", "f8", False, True) + push((3, "<", None, None, None, -1, -1, 0)) + b"b"
    values = Raw(call("_codecs", "encode", "k" * 8, "latin1"))
    start = call("numpy._core.multiarray", "_reconstruct", Raw(name("numpy", "ndarray")), (0,), "b")
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    yield BenignFile("one-tensor.pt", torch_zip(), True)
    yield BenignFile("old-layout.pth", old_layout(), True)
    yield BenignFile("packed-parts.pt", torch_zip(state(tensor(shape=(2, 2), strides=(1, 2)))), True)
    yield BenignFile("ordered.pkl", PROTO2 + ORDERED + STOP, False)
    yield BenignFile("bytes.pkl", PROTO2 + values.stream + STOP, False)
    yield BenignFile("dtype.pkl", PROTO2 + dtype + STOP, False)
    yield BenignFile("array.pkl", PROTO2 + start + push((1, (1,), Raw(dtype), False, values)) + b"b.", False)
    yield BenignFile("framed.pkl", PROTO4 + b"\x95\x09" + bytes(7) + text("kit") + STOP, False)
    yield BenignFile("nested.pkl", PROTO2 + b"(" * 500 + b"t" * 500 + STOP, False)
    yield BenignFile("hand.npy", npy("'<f4'"), False)
    yield BenignFile("hand.npz", pack([Part("x.npy", npy("'<f4'")), Part("y.npy", npy("'<f4'"), method=8)]), False)
    yield BenignFile("hand.safetensors", safetensors({"w": entry, "__metadata__": {"a": "b"}}, WEIGHTS), False)
