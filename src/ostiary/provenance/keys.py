"""Keys that sign and keys that verify: Ed25519 and ECDSA, as PEM files."""

import hashlib
import os
import stat
from pathlib import Path
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, SSlibKey

from ostiary.core.errors import ConfigError, FormatError
from ostiary.core.files import atomic, refuse_existing, write_text
from ostiary.provenance.files import read_small

KeyKind = Literal["ed25519", "ecdsa"]
PublicKey = Ed25519PublicKey | ec.EllipticCurvePublicKey
PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey
CURVES = ("secp256r1", "secp384r1", "secp521r1")
MAX_PEM = 16384


class NeedsPassphrase(ConfigError):
    """A private key is encrypted, and no passphrase was given."""


def new_key(name: Path | str, kind: KeyKind = "ed25519", *, passphrase: bytes | None = None) -> tuple[Path, Path]:
    """Write a new pair as `NAME.key` (PKCS #8, readable by its owner alone) and `NAME.pub`; gives both paths.

    ECDSA keys are on P-256. With `passphrase` the private key is encrypted. Raises OutputError when either exists.
    """
    private_path, public_path = Path(f"{name}.key"), Path(f"{name}.pub")
    refuse_existing(private_path)
    refuse_existing(public_path)
    private: PrivateKey = Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())
    cipher = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, cipher)
    with atomic(private_path) as temporary:
        # Created with its mode: a change afterwards would leave a moment in which others may open it.
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "wb") as stream:
            stream.write(pem)
            stream.flush()
            os.fsync(stream.fileno())
    write_text(public_path, public_pem(private.public_key()))
    return private_path, public_path


def read_private(path: Path | str, *, passphrase: bytes | None = None) -> CryptoSigner:
    """The signer of a private key file.

    Raises FormatError for what is no Ed25519 or ECDSA key, NeedsPassphrase when it is encrypted and none was given,
    ConfigError when the passphrase is wrong or not needed, or when others than its owner may read the file.
    """
    path = Path(path)
    pem = read_small(path, MAX_PEM)
    if b"PRIVATE" in pem and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError(f"others may read the private key '{path}'", hint=f"chmod 600 {path}")
    try:
        private = serialization.load_pem_private_key(pem, passphrase)
    except TypeError as error:
        if passphrase is None:
            raise NeedsPassphrase(f"the private key '{path}' needs a passphrase") from error
        raise ConfigError(f"the private key '{path}' has no passphrase", hint="leave it out") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        if passphrase is not None and b"ENCRYPTED" in pem:
            raise ConfigError(f"cannot open the private key '{path}'", hint="check the passphrase") from error
        raise FormatError(f"'{path}' is no private key in PEM", hint="`ostiary key new --out NAME`") from error
    if not isinstance(private, PrivateKey):
        raise FormatError(f"'{path}' is no Ed25519 or ECDSA key", hint="`ostiary key new --out NAME`")
    return CryptoSigner(private, usable(private.public_key(), str(path)))


def read_public(path: Path | str) -> SSlibKey:
    """The key of a public key file. Raises FormatError for what is no Ed25519 or ECDSA key."""
    return parse_public(read_small(Path(path), MAX_PEM), str(path))


def parse_public(pem: bytes, where: str) -> SSlibKey:
    """The key in a PEM text that came from `where`. Raises FormatError for what is no Ed25519 or ECDSA key."""
    if b"PRIVATE" in pem:
        raise FormatError(f"'{where}' holds a private key", hint="give the file that ends in .pub")
    try:
        public = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError(f"'{where}' is no public key in PEM", hint="give the file that ends in .pub") from error
    if not isinstance(public, PublicKey):
        raise FormatError(f"'{where}' is no Ed25519 or ECDSA key", hint="`ostiary key new --out NAME`")
    return usable(public, where)


def usable(public: PublicKey, where: str) -> SSlibKey:
    """A public key as the library that verifies takes it, under `key_id`. Raises FormatError for other curves."""
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name not in CURVES:
        raise FormatError(f"'{where}' is on the curve {public.curve.name}", hint=f"curves: {', '.join(CURVES)}")
    return SSlibKey.from_crypto(public, keyid=key_id(public))


def key_id(public: PublicKey) -> str:
    """SHA-256 of the key in DER, in hex: the same for every way to write it down."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(public.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def public_pem(public: PublicKey) -> str:
    """A public key as PEM text."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return public.public_bytes(serialization.Encoding.PEM, form).decode()
