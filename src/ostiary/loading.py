"""`ostiary.load` and `ostiary.admit`: a model from a path, and whether a policy lets it be used."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

from ostiary.core.errors import ConfigError
from ostiary.models.classifier import TorchClassifier
from ostiary.models.load import load_model
from ostiary.provenance.admission import admit as decide
from ostiary.provenance.decision import Decision
from ostiary.provenance.loader import Evidence, Loaded, load_verified
from ostiary.provenance.policy import Policy


@overload
def load(
    path: Path | str,
    arch: str | None = None,
    *,
    classes: int | Sequence[str] | None = None,
    normalize: str | None = None,
    input_shape: tuple[int, int, int] | None = None,
    width: int | None = None,
    device: Any = "cpu",
) -> TorchClassifier: ...


@overload
def load(
    path: Path | str,
    *,
    policy: Policy | Path | str,
    signature: Path | str | None = None,
    scans: Sequence[Path | str] | None = None,
    bom: Path | str | None = None,
    name: str | None = None,
    base: Path | str | None = None,
) -> Loaded: ...


def load(
    path: Path | str,
    arch: str | None = None,
    *,
    policy: Policy | Path | str | None = None,
    signature: Path | str | None = None,
    scans: Sequence[Path | str] | None = None,
    bom: Path | str | None = None,
    name: str | None = None,
    base: Path | str | None = None,
    **how: Any,
) -> TorchClassifier | Loaded:
    """The classifier at `path`; with a `policy`, what is verified there, from the very bytes that were verified.

    Without a policy: as `load_model`, which says what the other options are. With one: as `load_verified`. `policy`
    is a file of rules, a trust store or a public key; `signature`, `scans` and `bom` are the files that speak for the
    model, by default those beside it that end in `.sig`, `.scan` and `.bom`. What comes back has the tensors as
    `state`, the other files as `files` and the `decision`; its `classifier()` and `transformers()` make models of them.

    Raises FormatError, ModelError, ConfigError, MissingExtra; with a policy also Refused, whose `reasons` say why.
    """
    if policy is not None:
        if arch is not None or how:
            raise ConfigError(
                "a policy loads files as they are", hint="give arch and the other options to `load(...).classifier()`"
            )
        evidence = Evidence(signature, scans, bom)
        return load_verified(path, policy, evidence=evidence, name=name, base=base)
    if any(one is not None for one in (signature, scans, bom, name, base)):
        raise ConfigError(
            "signature, scans, bom, name and base need a policy", hint="give policy=, a public key will do"
        )
    return load_model(path, arch, **how)


def admit(
    path: Path | str,
    *,
    policy: Policy | Path | str,
    signature: Path | str | None = None,
    scans: Sequence[Path | str] | None = None,
    bom: Path | str | None = None,
    name: str | None = None,
    base: Path | str | None = None,
    adapters: Sequence[Path | str] = (),
) -> Decision:
    """Whether the model at `path` may be used here: admitted, refused or incomplete, with a reason for each rule.

    As `ostiary.load` with a policy, but every rule is told and nothing is loaded. `adapters` are folders of adapters
    for this model, which must be admitted, too. What is admitted met the rules; that proves no model harmless.

    Raises FormatError, ConfigError or MissingExtra for what cannot be read.
    """
    evidence = Evidence(signature, scans, bom)
    return decide(path, policy, evidence=evidence, name=name, base=base, adapters=adapters)
