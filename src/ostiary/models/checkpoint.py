"""Weights from a file and to a file, without ever running what is in it."""

import contextlib
import json
import os
import pickle
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ostiary.core.errors import FormatError, ModelError, OutputError
from ostiary.provenance.pickles import inspect_file

MAX_BYTES = 20 * 2**30
MAX_HEADER = 100 * 2**20
PICKLES = (".pt", ".pth", ".tar", ".bin", ".ckpt")
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "ema", "module")
PREFIXES = ("module.", "_orig_mod.", "model.")

# Formats that hold a model which we cannot take apart, by their first bytes and by their suffix.
FOREIGN_MAGIC = {
    b"GGUF": "a GGUF file",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7z archive",
}
FOREIGN_SUFFIX = {
    ".gguf": "a GGUF file",
    ".h5": "an HDF5 file",
    ".hdf5": "an HDF5 file",
    ".keras": "a Keras model",
    ".tflite": "a TensorFlow Lite model",
    ".pb": "a TensorFlow graph",
    ".pt2": "an exported torch program",
    ".pkl": "a pickle of unknown make",
    ".joblib": "a joblib pickle",
    ".npz": "a NumPy archive",
    ".msgpack": "a Flax checkpoint",
}
CONVERT = "ask its author for the weights as safetensors, or for a file saved by torch.save(model.state_dict(), ...)"
AGAIN = "download it again and compare size and digest with those its author gives"


def read_state(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state dict in a checkpoint, on the CPU, and the metadata in its header (safetensors only).

    `.safetensors`, or `.pt .pth .tar .bin .ckpt` read by `torch.load(weights_only=True)` alone. The state dict may
    lie under a known key (`state_dict`, `model`, `net`, ...), one or two levels deep; where several such keys exist
    the first of `WRAPPERS` counts. A prefix `module.`, `_orig_mod.` or `model.` common to all names is taken off.

    Raises FormatError when the file is missing, damaged, larger than `MAX_BYTES`, not weights only, or of a kind
    that is not examined.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    start = first_bytes(path)
    _refuse_foreign(path, suffix, start)
    if suffix == ".safetensors":
        state, metadata = _read_safetensors(path, start)
    elif suffix in PICKLES:
        state, metadata = find_state(path.name, _unpickle(path, start)), {}
    else:
        raise FormatError(
            f"cannot tell what '{path.name}' is by its suffix '{suffix}'",
            hint=f"a model is .safetensors, {', '.join(PICKLES)}, .onnx or a Hugging Face folder",
        )
    _check_tensors(path, state)
    prefix = common_prefix(state)
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}, metadata


def first_bytes(path: Path, limit: int | None = None) -> bytes:
    """The first 512 bytes of a file that is there, is not empty, no Git LFS pointer, and within `limit` bytes.

    Raises FormatError otherwise; `limit` is `MAX_BYTES` when left out.
    """
    limit = MAX_BYTES if limit is None else limit
    try:
        size = path.stat().st_size
        if size > limit:
            raise FormatError(f"'{path.name}' has {size} bytes, more than the limit of {limit}")
        with path.open("rb") as file:
            start = file.read(512)
    except FileNotFoundError as error:
        raise FormatError(f"no such file: '{path}'", hint="check the path of the model") from error
    except OSError as error:
        raise FormatError(f"cannot read '{path}': {error.strerror}") from error
    if not start:
        raise FormatError(f"'{path.name}' is empty", hint=AGAIN)
    if start.startswith(b"version https://git-lfs.github.com/"):
        raise FormatError(f"'{path.name}' is a Git LFS pointer, not the weights", hint="run 'git lfs pull'")
    return start


def common_prefix(names: Iterable[str]) -> str:
    """The longest chain of wrapper prefixes that all `names` begin with, e.g. `module._orig_mod.`."""
    names = list(names)
    found = ""
    while found_now := next((p for p in PREFIXES if names and all(n.startswith(found + p) for n in names)), None):
        found += found_now
    return found


def check_finite(state: Mapping[str, Tensor], where: str) -> None:
    """Raises ModelError naming the first tensor of `state` that holds NaN or infinity."""
    for name, tensor in state.items():
        finite = tensor.float().isfinite()
        if not finite.all():
            bad = tensor.numel() - int(finite.sum())
            raise ModelError(
                f"'{where}' has NaN or infinity in '{name}' ({bad} of {tensor.numel()} values)",
                hint="the training diverged or the file is damaged; " + AGAIN,
            )


def write_state(state: Mapping[str, Tensor], path: Path | str, metadata: dict[str, str]) -> None:
    """Write `state` and `metadata` as safetensors; the file appears whole or not at all.

    Raises OutputError when `path` exists or cannot be written.
    """
    path = Path(path)
    if path.exists():
        raise OutputError(f"'{path}' exists already", hint="give another name, or remove it first")
    # One copy for each name: safetensors refuses tensors that share memory, as tied weights do.
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        save_file(own, temporary, metadata)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise OutputError(f"cannot write '{path}': {error}", hint="check the folder and the free space") from error


def _refuse_foreign(path: Path, suffix: str, start: bytes) -> None:
    kind = next((kind for magic, kind in FOREIGN_MAGIC.items() if start.startswith(magic)), None)
    if start[4:8] == b"TFL3":
        kind = "a TensorFlow Lite model"
    if start[257:262] == b"ustar":
        kind = "a tar archive"
    kind = kind or FOREIGN_SUFFIX.get(suffix)
    if kind is not None:
        raise FormatError(f"OS101 not examined: '{path.name}' is {kind}", hint=CONVERT)


def _read_safetensors(path: Path, start: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    size = path.stat().st_size
    header = int.from_bytes(start[:8], "little")
    if size < 10 or start[8:9] != b"{":
        raise FormatError(f"'{path.name}' is not a safetensors file: it begins with {start[:16]!r}", hint=AGAIN)
    if header > min(size - 8, MAX_HEADER):
        raise FormatError(
            f"'{path.name}' is truncated or damaged: its header claims {header} bytes of a file of {size}", hint=AGAIN
        )
    try:
        with safe_open(path, framework="pt") as file:
            # Cloned, so that nothing depends on the file once it is read.
            state = {name: file.get_tensor(name).clone() for name in sorted(file.keys())}
            return state, dict(file.metadata() or {})
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise FormatError(f"'{path.name}' is a truncated or damaged safetensors file: {error}", hint=AGAIN) from error


def _unpickle(path: Path, start: bytes) -> Any:
    if start.startswith(b"PK\x03\x04"):
        _check_zip(path)
    elif start[:1] != b"\x80":
        raise FormatError(f"'{path.name}' is not a torch checkpoint: it begins with {start[:16]!r}", hint=AGAIN)
    _refuse_tricks(path)
    try:
        with warnings.catch_warnings():
            # torch warns of what it then refuses, and the refusal is reported below.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = _refusal(str(error))
        raise FormatError(f"'{path.name}' is a pickle that is not weights-only{reason}", hint=CONVERT) from error
    except Exception as error:  # torch raises almost anything for damaged files
        reason = str(error).partition("\n")[0]
        raise FormatError(f"'{path.name}' is a damaged torch checkpoint: {reason}", hint=AGAIN) from error


def _refuse_tricks(path: Path) -> None:
    """Refuse what the inspection does, but for names and calls, of which torch has a list of its own that is longer."""
    reasons = [
        reason for reason in inspect_file(path).reasons if reason.code not in ("OS112", "OS117", "OS118", "OS119")
    ]
    if reasons:
        raise FormatError(f"'{path.name}' is refused: {reasons[0]}", hint=f"`ostiary explain {reasons[0].code}`")


def _refusal(message: str) -> str:
    """Which global the unpickler refused, from its message; empty when it does not say."""
    _, found, rest = message.partition("GLOBAL ")
    return f": it calls {rest.split()[0]}" if found and rest.split() else ""


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise FormatError(f"'{path.name}' is a truncated or damaged torch checkpoint: {error}", hint=AGAIN) from error
    total = sum(member.file_size for member in members)
    if total > MAX_BYTES:
        raise FormatError(f"'{path.name}' unpacks to {total} bytes, more than the limit of {MAX_BYTES}")
    names = [member.filename for member in members]
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise FormatError(f"OS101 not examined: '{path.name}' is a TorchScript archive, which holds code", hint=CONVERT)
    if not any(name.endswith("/data.pkl") for name in names):
        raise FormatError(f"OS101 not examined: '{path.name}' is a zip archive without torch weights", hint=CONVERT)


def find_state(where: str, loaded: Any, under: list[str] | None = None) -> dict[str, Tensor]:
    """The state dict in what a checkpoint held, at most two known keys deep; raises FormatError naming `where`.

    The keys that led to it are added to `under`.
    """
    for _ in range(3):
        if not isinstance(loaded, dict):
            break
        strange = [name for name, value in loaded.items() if not isinstance(value, Tensor) or not isinstance(name, str)]
        if loaded and not strange:
            return dict(loaded)
        inner = next((key for key in WRAPPERS if isinstance(loaded.get(key), dict)), None)
        if inner is None and len(strange) < len(loaded):
            kind = type(loaded[strange[0]]).__name__
            raise FormatError(f"'{where}' holds tensors beside {strange[0]!r}, which is a {kind}", hint=CONVERT)
        if inner is None:
            break
        loaded = loaded[inner]
        if under is not None:
            under.append(inner)
    found = f"the keys {', '.join(map(repr, list(loaded)[:5]))}" if isinstance(loaded, dict) else type(loaded).__name__
    raise FormatError(f"'{where}' holds no state dict: found {found}", hint=CONVERT)


def _check_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    if not state:
        raise FormatError(f"'{path.name}' holds no tensors", hint=AGAIN)
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            raise FormatError(
                f"OS101 not examined: '{name}' in '{path.name}' is sparse, quantised or complex", hint=CONVERT
            )
        if tensor.is_meta:
            raise FormatError(f"'{name}' in '{path.name}' has a shape but no values", hint=AGAIN)
        # A view with stride 0 claims terabytes that the file does not hold.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise FormatError(f"'{name}' in '{path.name}' claims more values than the file holds", hint=AGAIN)


def parse_json(text: str, what: str, where: str) -> Any:
    """`text` as JSON. Raises FormatError naming `what` in `where`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} in '{where}' is not JSON: {error}", hint=AGAIN) from error
