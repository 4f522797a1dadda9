"""What may be loaded here, and what must be true of it: a policy from one TOML file."""

import tomllib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, ValidationError

from ostiary.core.card import Family
from ostiary.core.errors import ConfigError
from ostiary.core.records import Frozen
from ostiary.provenance.envelope import first_error
from ostiary.provenance.strict import Days, Hex
from ostiary.provenance.trust import Trust, read_pinned, read_trust

READY = ("strict", "team", "research")
"""Policies that come with the package."""
Format = Literal["safetensors", "weights-only"]
HINT = "docs/provenance.md shows a policy"


class Limits(Frozen):
    """What a model may not exceed: bytes in all, bytes of one file that holds no weights, tensors."""

    max_bytes: Annotated[int, Field(gt=0)] = 64 * 2**30
    max_other_bytes: Annotated[int, Field(gt=0)] = 64 * 2**20
    max_tensors: Annotated[int, Field(gt=0)] = 100_000


class ScanRules(Frozen):
    """What a scan must be that lets a model pass: how old in days, of which kinds of backdoors, by whom, by which tool.

    `families` count where the scanned model is of their modality. `separate` wants a scanner who is not the signer of
    the model; `min_version` is that of the scanner.
    """

    max_age_days: Days = 90
    families: tuple[Family, ...] = ()
    separate: bool = True
    min_version: Annotated[str, Field(pattern=r"^\d+(\.\d+){0,2}$")] | None = None


class BomRules(Frozen):
    """How complete the bill of materials must be."""

    level: Literal["minimum", "full"] = "minimum"


class DataRules(Frozen):
    """Where it is told what a model learnt from: the folder of an index, relative to the policy."""

    index: Annotated[str, Field(min_length=1)]


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

    `trust` is the path of a trust store or of a public key, relative to the policy, and `trust_sha256` pins it; what
    `read_policy` is given goes before it. With `scan` a scan of the same bytes must have passed, with `bom` a signed
    bill of materials must be there, with `data` a signed statement of what it learnt from, of which nothing is revoked.
    `remote_code` names the models that may bring code of their own; it is never run here, but they are not refused.
    """

    version: Literal[1]
    trust: str | None = None
    trust_sha256: Hex | None = None
    formats: Annotated[tuple[Format, ...], Field(min_length=1)] = ("safetensors",)
    finite: bool = True
    remote_code: tuple[str, ...] = ()
    limits: Limits = Limits()
    scan: ScanRules | None = None
    bom: BomRules | None = None
    data: DataRules | None = None
    exemption: tuple[Exemption, ...] = ()


@dataclass(frozen=True)
class Policy:
    """Rules with the trust they name; `digest` is the SHA-256 of the file, `folder` what its paths are relative to."""

    rules: Rules
    trust: Trust
    digest: str | None = None
    folder: Path = Path()

    def exemption(self, root: str, codes: frozenset[str], now: datetime) -> Exemption | None:
        """What lets a model pass in spite of reasons with all of `codes`; None when nothing does."""
        fits = (one for one in self.rules.exemption if one.root == root and codes <= set(one.codes))
        return next((one for one in fits if now < one.expires), None)


def read_policy(path: Path | str, *, pin: str | None = None, trust: Path | str | None = None) -> Policy:
    """The policy in a TOML file, or a ready one by its name (`READY`), with the trust that it names or `trust`.

    A public key or a trust store alone stands for the default rules with that trust. `pin` is the SHA-256 that the file
    must have. Raises FormatError (unreadable), ConfigError (unknown keys, values that mean nothing, no trust, trust
    said twice) or Refused (OS750: not the file that was pinned).
    """
    where = _place(path)
    data, found = read_pinned(where, pin)
    value = _parse(data, where)
    if value is None or "identity" in value:
        if trust is not None:
            raise ConfigError(
                f"'{path}' is no policy but says whom to trust, and '{trust}' says it, too", hint="leave one out"
            )
        return Policy(Rules(version=1, trust=where.name), read_trust(where, pin=found))
    rules = _rules(value, where)
    if trust is None and rules.trust is None:
        raise ConfigError(
            f"the policy '{path}' says nothing of whom to trust", hint="--trust FILE, or trust in the file"
        )
    store = Path(trust) if trust is not None else where.parent / str(rules.trust)
    return Policy(rules, read_trust(store, pin=rules.trust_sha256), found, where.parent)


def read_rules(path: Path | str, *, pin: str | None = None) -> tuple[Rules, str]:
    """The rules of a policy and its text, whomever it trusts; raises as `read_policy`."""
    where = _place(path)
    data, _ = read_pinned(where, pin)
    value = _parse(data, where)
    if value is None or "identity" in value:
        raise ConfigError(f"'{path}' says whom to trust and holds no rules", hint=HINT)
    return _rules(value, where), data.decode()


def _place(path: Path | str) -> Path:
    """Where a policy lies; the name of a ready one stands for that, whatever lies here under the same name."""
    return Path(__file__).parent / "policies" / f"{path}.toml" if str(path) in READY else Path(path)


def _rules(value: dict[str, object], where: Path) -> Rules:
    try:
        return Rules.model_validate(value)
    except ValidationError as error:
        raise ConfigError(f"'{where}' is no policy: {first_error(error)}", hint=HINT) from error


def _parse(data: bytes, path: Path) -> dict[str, object] | None:
    """The TOML in a policy; None for a key in PEM."""
    if data.lstrip().startswith(b"-----BEGIN"):
        return None
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"'{path}' is neither a policy nor a public key: {error}", hint=HINT) from error
