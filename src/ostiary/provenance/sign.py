"""Signing a model: its manifest, as a statement, in an envelope."""

import mmap
from collections.abc import Sequence
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from ostiary.core.errors import ConfigError
from ostiary.provenance.envelope import Opened, opened, sign
from ostiary.provenance.manifest import Algorithm, Manifest, OnBytes, digest
from ostiary.provenance.oms import oms_bundle
from ostiary.provenance.safetensors_header import read_header
from ostiary.provenance.specification import specification
from ostiary.provenance.statement import TensorSpec, read_statement, state
from ostiary.provenance.verify import compare


def sign_model(
    path: Path | str,
    keys: Sequence[CryptoSigner],
    *,
    name: str | None = None,
    version: int | None = None,
    algorithm: Algorithm = "sha256",
    on_bytes: OnBytes | None = None,
) -> Opened:
    """Digest a file or a folder and sign what was found; `name` is the model's, by default that of the path.

    Raises what `digest` raises, and ConfigError when one key is given twice.
    """
    path = Path(path)
    _once(keys)
    manifest = digest(path, algorithm, on_bytes=on_bytes)
    return sign(state(manifest, name or path.resolve().name, version=version, tensors=_tensors(path, manifest)), keys)


def sign_oms(
    path: Path | str,
    key: CryptoSigner,
    *,
    name: str | None = None,
    algorithm: Algorithm = "sha256",
    on_bytes: OnBytes | None = None,
) -> bytes:
    """As `sign_model`, in the form of OpenSSF Model Signing; raises ConfigError for a key that is not ECDSA."""
    path = Path(path)
    manifest = digest(path, algorithm, on_bytes=on_bytes)
    return oms_bundle(manifest, name or path.resolve().name, key)


def add_signature(
    path: Path | str, signature: bytes, keys: Sequence[CryptoSigner], *, on_bytes: OnBytes | None = None
) -> Opened:
    """The envelope `signature` with further signatures on the same statement, once the files are what it says.

    Raises Refused when the envelope or the statement is ill-formed, or when a file is not what was signed.
    """
    envelope = opened(signature, "signature")
    _once(keys)
    if twice := {key.public_key.keyid for key in keys} & {key for key, _ in envelope.signatures}:
        raise ConfigError(f"key {min(twice)[:12]} has signed already", hint="give another key")
    claim = read_statement(envelope.payload, "signature").claim()
    compare(claim, digest(path, claim.manifest.algorithm, on_bytes=on_bytes))
    more = sign(envelope.payload, keys)
    return Opened(envelope.payload, envelope.signatures + more.signatures)


def _tensors(path: Path, manifest: Manifest) -> dict[str, dict[str, TensorSpec]]:
    """The specification of every file of safetensors; raises Refused for one whose header is ill-formed."""
    found = {}
    for file in manifest.files:
        if file.path.endswith(".safetensors"):
            whole = path / file.path if path.is_dir() else path
            if not file.size:
                read_header(b"", file.path)
            with (
                whole.open("rb") as stream,
                mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
                memoryview(mapped) as view,
            ):
                found[file.path] = specification(read_header(view, file.path))
    return found


def _once(keys: Sequence[CryptoSigner]) -> None:
    ids = [key.public_key.keyid for key in keys]
    if len(set(ids)) < len(ids):
        raise ConfigError("one key is given twice", hint="each signature must be of another key")
