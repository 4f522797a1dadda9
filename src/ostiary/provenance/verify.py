"""Whether these bytes are those that somebody trusted signed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ostiary.provenance.envelope import MAX_ENVELOPE, opened, signers
from ostiary.provenance.files import read_up_to, require, shown
from ostiary.provenance.manifest import FileDigest, Manifest, OnBytes, digest
from ostiary.provenance.memory import SKEW, remember
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.statement import Claim, read_statement
from ostiary.provenance.trust import Identity, Role, Trust, day, is_revoked, unfit

ROLE: Role = "producer"
"""The role in which models are signed."""
MAX_NAMED = 50
"""Of a folder in which every file differs, so many are named."""


@dataclass(frozen=True, slots=True)
class Vouched:
    """A claim that enough trusted signers made; it says nothing yet about any bytes at hand.

    `signers` are their names in the trust store, `keys` the ids of their keys or certificates.
    """

    claim: Claim
    signers: tuple[str, ...]
    keys: tuple[str, ...]


def verify(
    path: Path | str,
    signature: Path | str,
    trust: Trust,
    *,
    name: str | None = None,
    ignore: Sequence[str] = (),
    now: datetime | None = None,
    state: Path | None = None,
    on_bytes: OnBytes | None = None,
) -> Vouched:
    """Check that a file or a folder is, name for name and byte for byte, what trusted keys signed.

    The model must have been signed under `name`, by default the name of the file or folder. `ignore` are names of
    files and folders that are not looked at because the caller says so; what a signer would have ignored counts for
    nothing. `state` is the folder of `memory`.

    Raises Refused with every reason found, FormatError when `path` cannot be read. What holds now need not hold when
    the path is read again: `ostiary.load` checks and loads the same bytes.
    """
    path = Path(path)
    require(path)
    vouched = vouch(read_signature(signature), trust, name=name or path.resolve().name, now=now, state=state)
    found = digest(path, vouched.claim.manifest.algorithm, on_bytes=on_bytes)
    found = found.without(ignored_by(path, signature, vouched.claim, ignore))
    compare(vouched.claim, found)
    # A signature that binds no root may stand over a model that is revoked by its root.
    if reasons := revoked_reasons(trust, vouched.claim.name, [found.root.hex()]):
        raise Refused(reasons)
    return vouched


def read_signature(path: Path | str) -> bytes:
    """The bytes of a signature file. Raises Refused when there is none (OS701), FormatError when it is unreadable."""
    path = Path(path)
    try:
        return read_up_to(path, MAX_ENVELOPE)
    except FileNotFoundError as error:
        raise Refused([Reason("OS701", path.name, "there is no such signature file")]) from error


def vouch(
    signature: bytes,
    trust: Trust,
    *,
    name: str | None = None,
    now: datetime | None = None,
    state: Path | None = None,
) -> Vouched:
    """Read a signature and check all of it that needs no file: keys, roles, number, time, name, version, revocation.

    Raises Refused.
    """
    now = now or datetime.now(UTC)
    remember_store(trust, now, state)
    claim, by = prove(signature, trust, now, "signature")
    good = count_signers(by, trust, ROLE, [claim.name], now, "signature")
    if reasons := _outdated(claim, trust, now) + _misnamed(claim, name):
        raise Refused(reasons)
    return Vouched(claim, tuple(sorted({name for names in good.values() for name in names})), tuple(good))


def remember_store(trust: Trust, now: datetime, state: Path | None) -> None:
    """Hold the trust store, where there is one, against what this machine has seen. Raises as `memory.remember`."""
    if trust.store is not None and trust.digest is not None:
        remember(trust.store, trust.digest, now, state)


def count_signers(
    by: Mapping[str, tuple[Identity, ...]],
    trust: Trust,
    role: Role,
    subjects: Sequence[str],
    now: datetime,
    where: str,
) -> dict[str, list[str]]:
    """The names of those who count, by key, of all `by` whom something is signed: fit in `role` for every subject.

    Raises Refused when they are fewer than the trust asks for (OS727), with what speaks against the others: a revoked
    key (OS740), time, role, name (OS744 to OS746).
    """
    good: dict[str, list[str]] = {}
    reasons: list[Reason] = []
    for key, identities in sorted(by.items()):
        if is_revoked(trust, key):
            reasons.append(Reason("OS740", key[:12], "this key is revoked"))
            continue
        against = {one.name: [unfit(one, role, subject, now) for subject in subjects] for one in identities}
        if names := [name for name, found in against.items() if not any(found)]:
            good[key] = names
        else:
            reasons += [reason for found in against.values() for reason in found if reason is not None]
    if len(good) < (wanted := trust.threshold(role)):
        if not reasons or wanted > 1:
            reasons.append(Reason("OS727", where, f"{len(good)} of {wanted} signatures needed as {role}"))
        raise Refused(reasons)
    return good


def prove(
    signature: bytes, trust: Trust, now: datetime, where: str
) -> tuple[Claim, Mapping[str, tuple[Identity, ...]]]:
    """What a signature claims, and whom of those in `trust` it is proved to be from, by the id of key or certificate.

    Raises Refused.
    """
    if is_bundle(signature):
        from ostiary.provenance.oms import prove_bundle

        return prove_bundle(signature, trust, now, where)
    envelope = opened(signature, where)
    keys = signers(envelope, trust.keys, where)
    return read_statement(envelope.payload, where).claim(), {key: trust.identities[key] for key in keys}


def is_bundle(signature: bytes) -> bool:
    """Whether a signature is in the bundle form of sigstore, as those of OpenSSF Model Signing are."""
    return b'"mediaType"' in signature[:4096] or b'"verificationMaterial"' in signature


def ignored_by(path: Path, signature: Path | str, claim: Claim, ignore: Sequence[str]) -> list[str]:
    """What is not looked at under `path`: `ignore`, and the signature itself where its form puts it inside."""
    inside = Path(signature).resolve()
    if not claim.bound and path.is_dir() and inside.is_relative_to(path.resolve()):
        return [*ignore, inside.relative_to(path.resolve()).as_posix()]
    return list(ignore)


def revoked_reasons(trust: Trust, name: str, roots: Iterable[str]) -> list[Reason]:
    """A reason (OS741) where the store revokes the model with one of these roots."""
    found = set(roots) & set(trust.store.revoked.models if trust.store else ())
    return [Reason("OS741", name, f"the model {min(found)[:12]} is revoked")] if found else []


def compare(claim: Claim, found: Manifest) -> None:
    """Raises Refused when files at hand are not those that were signed, with a reason for each that differs.

    Altered (OS707), missing (OS708), added (OS709), folders that hold nothing (OS710).
    """
    signed = claim.manifest
    before = {file.path: file for file in signed.files}
    after = {file.path: file for file in found.files}
    moved = {file.digest: path for path, file in after.items() if path not in before}
    both = [(file, after[path]) for path, file in before.items() if path in after]
    reasons = [
        _altered(*pair) for pair in both if pair[0].digest != pair[1].digest or 0 <= pair[0].size != pair[1].size
    ]
    reasons += [
        Reason("OS708", shown(path), _missing(moved.get(file.digest)))
        for path, file in before.items()
        if path not in after
    ]
    reasons += [Reason("OS709", shown(path), "nobody signed this file") for path in after if path not in before]
    folders = set(signed.empty_folders) ^ set(found.empty_folders) if claim.bound else set()
    reasons += [
        Reason("OS710", shown(name), "an empty folder was " + ("added" if name in found.empty_folders else "signed"))
        for name in sorted(folders)
        if not any(path.startswith(f"{name}/") for path in (*before, *after))
    ]
    if reasons:
        left = len(reasons) - MAX_NAMED
        raise Refused(reasons[:MAX_NAMED] + [Reason("OS707", "model", f"and {left} more")] * (left > 0))


def _altered(signed: FileDigest, found: FileDigest) -> Reason:
    if 0 <= signed.size != found.size:
        return Reason("OS707", shown(signed.path), f"it has {found.size} bytes, not the signed {signed.size}")
    return Reason("OS707", shown(signed.path), "its bytes are not those that were signed")


def _missing(moved: str | None) -> str:
    return "this signed file is missing" + (f"; its bytes are in '{shown(moved)}'" if moved else "")


def _outdated(claim: Claim, trust: Trust, now: datetime) -> list[Reason]:
    store, reasons = trust.store, []
    if claim.created is not None and claim.created > now + SKEW:
        reasons.append(Reason("OS747", claim.name, f"signed on {day(claim.created)}, which is in the future"))
    if store is None:
        return reasons
    if store.max_age_days is not None and (
        claim.created is None or now - claim.created > timedelta(days=store.max_age_days)
    ):
        when = f"signed on {day(claim.created)}" if claim.created else "signed at a time that it does not tell"
        reasons.append(Reason("OS747", claim.name, f"{when}; the limit is {store.max_age_days:g} days"))
    roots = [claim.manifest.oms_root.hex(), *([claim.manifest.root.hex()] if claim.bound else [])]
    reasons += revoked_reasons(trust, claim.name, roots)
    floor = store.floor.get(claim.name)
    if floor is not None and (claim.version is None or claim.version < floor):
        reasons.append(Reason("OS749", claim.name, f"version {claim.version}; none below {floor} is taken"))
    return reasons


def _misnamed(claim: Claim, name: str | None) -> list[Reason]:
    if name is None or name == claim.name:
        return []
    return [Reason("OS712", shown(name), f"it was signed under the name '{claim.name}'")]
