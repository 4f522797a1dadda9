"""What may be loaded here, and what must be true of it: a policy from one TOML file."""

import tomllib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, ValidationError

from ostiary.core.errors import ConfigError
from ostiary.core.records import Frozen
from ostiary.provenance.envelope import first_error
from ostiary.provenance.strict import Hex
from ostiary.provenance.trust import Trust, read_pinned, read_trust

Format = Literal["safetensors", "weights-only"]
HINT = "docs/provenance.md shows a policy"


class Limits(Frozen):
    """What a model may not exceed: bytes in all, bytes of one file that holds no weights, tensors."""

    max_bytes: Annotated[int, Field(gt=0)] = 64 * 2**30
    max_other_bytes: Annotated[int, Field(gt=0)] = 64 * 2**20
    max_tensors: Annotated[int, Field(gt=0)] = 100_000


class Exemption(Frozen):
    """Break-glass: a model, by its root, that is loaded although reasons with these codes speak against it.

    It must say why, and until when.
    """

    root: Hex
    codes: Annotated[tuple[Annotated[str, Field(pattern=r"^OS\d{3}$")], ...], Field(min_length=1)]
    reason: Annotated[str, Field(min_length=10, max_length=500)]
    expires: AwareDatetime


class Rules(Frozen):
    """The file as it is written.

    `trust` is the path of a trust store or of a public key, relative to the policy, and `trust_sha256` pins it.
    `remote_code` names the models that may bring code of their own; it is never run here, but they are not refused.
    """

    version: Literal[1]
    trust: str
    trust_sha256: Hex | None = None
    formats: Annotated[tuple[Format, ...], Field(min_length=1)] = ("safetensors",)
    finite: bool = True
    remote_code: tuple[str, ...] = ()
    limits: Limits = Limits()
    exemption: tuple[Exemption, ...] = ()


@dataclass(frozen=True)
class Policy:
    """Rules with the trust they name; `digest` is the SHA-256 of the file, None where a key alone is the policy."""

    rules: Rules
    trust: Trust
    digest: str | None = None

    def exemption(self, root: str, codes: frozenset[str], now: datetime) -> Exemption | None:
        """What lets a model pass in spite of reasons with all of `codes`; None when nothing does."""
        fits = (one for one in self.rules.exemption if one.root == root and codes <= set(one.codes))
        return next((one for one in fits if now < one.expires), None)


def read_policy(path: Path | str, *, pin: str | None = None) -> Policy:
    """The policy in a TOML file; a public key or a trust store alone stands for the default rules with that trust.

    `pin` is the SHA-256 that the file must have. Raises FormatError (unreadable), ConfigError (unknown keys, values
    that mean nothing) or Refused (OS750: not the file that was pinned).
    """
    path = Path(path)
    data, found = read_pinned(path, pin)
    value = _parse(data, path)
    if value is None or "identity" in value:
        trust = read_trust(path, pin=found)
        return Policy(Rules(version=1, trust=path.name), trust)
    try:
        rules = Rules.model_validate(value)
    except ValidationError as error:
        raise ConfigError(f"'{path}' is no policy: {first_error(error)}", hint=HINT) from error
    return Policy(rules, read_trust(path.parent / rules.trust, pin=rules.trust_sha256), found)


def _parse(data: bytes, path: Path) -> dict[str, object] | None:
    """The TOML in a policy; None for a key in PEM."""
    if data.lstrip().startswith(b"-----BEGIN"):
        return None
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"'{path}' is neither a policy nor a public key: {error}", hint=HINT) from error
