"""A small model in a folder, the keys that sign it, and ways to make a signature say something else."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from securesystemslib.signer import CryptoSigner

from ostiary.provenance.envelope import opened, sign
from ostiary.provenance.keys import new_key, read_private
from ostiary.provenance.sign import sign_model

TEAM = """id = "team"
version = 1
expires = 2099-01-01T00:00:00Z
[[identity]]
name = "release"
key = "producer.pub"
roles = ["producer"]
[[identity]]
name = "lab"
key = "second.pub"
roles = ["scanner"]
"""
"""A trust store in which one key signs models and another states scans."""


@dataclass(frozen=True)
class Signed:
    """The model's folder, its signature beside it, and the keys: one that is trusted, one more, one of a stranger."""

    folder: Path
    signature: Path
    keys: dict[str, CryptoSigner]

    def public(self, name: str = "producer") -> Path:
        return self.folder.parent / f"{name}.pub"

    def resign(self, change: Callable[[dict[str, Any]], Any], *, key: str = "producer") -> None:
        """Sign the statement again with something changed in it: what a signer in error or in bad faith can do."""
        statement = json.loads(opened(self.signature.read_bytes(), "signature").payload)
        made = change(statement)
        payload = made if isinstance(made, bytes) else json.dumps(statement).encode()
        self.signature.write_bytes(sign(payload, [self.keys[key]]).to_json())

    def edit(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change the envelope without a key."""
        envelope = json.loads(self.signature.read_bytes())
        made = change(envelope)
        self.signature.write_bytes(made if isinstance(made, bytes) else json.dumps(envelope).encode())

    def store(self, text: str = "", *, version: int = 1, roles: str = '["producer"]', identity: str = "") -> Path:
        """A trust store with the producer's key; `text` stands before the identities, `identity` in the first."""
        path = self.folder.parent / "trust.toml"
        path.write_text(
            f'id = "team"\nversion = {version}\nexpires = 2099-01-01T00:00:00Z\n{text}\n'
            f'[[identity]]\nname = "release"\nkey = "producer.pub"\nroles = {roles}\n{identity}\n'
        )
        return path


def write_model(folder: Path) -> None:
    """Two shards, a config and a tokenizer."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    save_file({"a.weight": torch.randn(4, 3, generator=generator)}, folder / "model-1.safetensors")
    save_file({"b.weight": torch.randn(4, 3, generator=generator)}, folder / "model-2.safetensors")
    (folder / "config.json").write_text('{"model_type": "toy"}')
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "tokenizer.json").write_text('{"version": "1.0"}')


def make_signed(root: Path, *, version: int | None = None) -> Signed:
    """A new signed model under `root`."""
    keys = {}
    for name, kind in (("producer", "ed25519"), ("second", "ecdsa"), ("stranger", "ed25519")):
        private, _ = new_key(root / name, kind)  # type: ignore[arg-type]
        keys[name] = read_private(private)
    folder = root / "model"
    write_model(folder)
    signature = root / "model.sig"
    signature.write_bytes(sign_model(folder, [keys["producer"]], version=version).to_json())
    return Signed(folder, signature, keys)


def flip(path: Path, at: int) -> None:
    """Flip one bit of a byte of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def payload_of(signature: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(json.loads(signature.read_bytes())["payload"]))
    return found
