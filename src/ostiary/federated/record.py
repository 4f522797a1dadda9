"""What a round leaves behind: a verdict for each client, and a statement of it that can be signed and read again."""

import hashlib
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from securesystemslib.signer import CryptoSigner

from ostiary.core.errors import FormatError
from ostiary.core.execute import params_of
from ostiary.core.files import write_text
from ostiary.core.records import Caution, ClientVerdict
from ostiary.federated.layout import Tensors
from ostiary.federated.rounds import Round
from ostiary.provenance.attested import MAX_STATEMENT, Said, heard, say
from ostiary.provenance.envelope import first_error, sign
from ostiary.provenance.files import read_small, shown
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.statement import Subject
from ostiary.provenance.strict import Hex
from ostiary.provenance.trust import Trust

ROUND = "ostiary:federated-round/v1"
"""The predicate: which round, under which rule, from which model, and what was decided of each client that replied."""
DIGEST = "ostiaryTensorsV1"
"""The name of `tensors_digest` among a subject's digests."""
KNOWN = "it must be safetensors as it was written, of types that NumPy knows: bfloat16 is none"
MAX_TEXT = 400
"""Characters of a reason: clients have a say in some of them."""
NAMES = "they are `round-001.json` and so on"


class RoundStatement(BaseModel):
    """The predicate as it is read again; further fields at its top level, of later minor versions, are passed over.

    `federation` is drawn at random for each run and the same in all its rounds; `planned` is the number of rounds that
    the run was to have, None where that was not known.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    federation: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    planned: Annotated[int, Field(ge=1)] | None
    round: Annotated[int, Field(ge=1)]
    rule: str
    params: dict[str, Any]
    modelBefore: Hex  # noqa: N815 - JSON's habit
    clients: tuple[ClientVerdict, ...]
    cautions: tuple[Caution, ...]


def verdicts(done: Round) -> tuple[ClientVerdict, ...]:
    """What a round decided of each client that replied, in the order of names."""
    weights, scores = {}, {}
    if done.verdict is not None:
        weights = dict(zip(done.clients, done.verdict.weights.tolist(), strict=True))
        scores = dict(zip(done.clients, done.verdict.scores.tolist(), strict=True))
    return tuple(
        ClientVerdict(
            client=name,
            accepted=name in done.accepted,
            weight=weights.get(name, 0.0),
            score=scores[name] if np.isfinite(scores.get(name, np.nan)) else None,
            code=reason.code,
            reason=reason.text[:MAX_TEXT],
        )
        for name, reason in sorted(done.reasons.items())
    )


def tensors_digest(tensors: Tensors) -> str:
    """SHA-256 (hex) over the tensors in the order of names: name, type, shape, bytes."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        found.update(f"{name}\0{tensor.dtype.str}\0{tensor.shape}\0".encode())
        found.update(tensor.tobytes())
    return found.hexdigest()


@dataclass(frozen=True, slots=True)
class Judged:
    """A round with all that a statement of it needs; `before` and `after` are the global models around it.

    Both are one object where the model stayed as it was; `cautions` are those of this round.
    """

    done: Round
    rule: Any
    before: Tensors
    after: Tensors
    cautions: tuple[Caution, ...]


def round_payload(judged: Judged, federation: str, planned: int | None = None) -> bytes:
    """The statement of a round, to be signed: its subject is the global model that it left, by `tensors_digest`."""
    done, rule = judged.done, judged.rule
    predicate = {
        "federation": federation,
        "planned": planned,
        "round": done.number,
        "rule": rule.card.id,
        "params": params_of(rule) if is_dataclass(rule) else {},
        "modelBefore": tensors_digest(judged.before),
        "clients": [one.model_dump() for one in verdicts(done)],
        "cautions": [one.model_dump() for one in judged.cautions],
    }
    subject = Subject(name=f"global model after round {done.number}", digest={DIGEST: tensors_digest(judged.after)})
    return say([subject], ROUND, predicate)


def write_rounds(
    folder: Path, keys: Sequence[CryptoSigner] = (), planned: int | None = None
) -> Callable[[Judged], None]:
    """What writes `round-NNN.json` into `folder` as each round of one run ends, signed by `keys` if there are any.

    For `BackdoorGuard(…, on_round=write_rounds(folder, keys, planned=10))`. Without the number of rounds that are
    `planned` nobody can tell later whether the last ones are missing. Raises OutputError as it writes.
    """
    federation = secrets.token_hex(16)

    def write(judged: Judged) -> None:
        said = round_payload(judged, federation, planned)
        text = (sign(said, keys).to_json() if keys else said).decode()
        write_text(folder / f"round-{judged.done.number:03d}.json", text + "\n")

    return write


def read_rounds(folder: Path, trust: Trust, last: Tensors | None = None) -> tuple[RoundStatement, ...]:
    """What those whom `trust` takes for producers signed of the rounds in `folder`, each going on from the one before.

    `last` is the model that the last round is said to have left. Raises FormatError where there are none, or a file is
    called otherwise, and Refused: as `heard`; odd fields or subjects (OS730); a round that is missing, be it the last
    of those that were planned (OS540); a round of another run, or a round, or `last`, that is not of the model which
    the round before left (OS541). Where no number was planned, later rounds may be missing.
    """
    files = {_number(file): file for file in folder.glob("round-*.json")}
    if not files:
        raise FormatError(f"no rounds in '{folder}'", hint=NAMES)
    found: list[RoundStatement] = []
    left: str | None = None
    for _, file in sorted(files.items()):
        said = heard(read_small(file, MAX_STATEMENT), trust, "producer", [ROUND], file.name)
        one = _parsed(said, file.name)
        if one.round != len(found) + 1:
            raise Refused([Reason("OS540", file.name, f"it is round {one.round}, round {len(found) + 1} is missing")])
        if found and (one.federation, one.planned) != (found[0].federation, found[0].planned):
            raise Refused([Reason("OS541", file.name, "it is of another run than the first round")])
        if left is not None and one.modelBefore != left:
            raise Refused([Reason("OS541", file.name, "it does not go on from the model of the round before")])
        if len(said.subjects) != 1 or DIGEST not in said.subjects[0].digest:
            raise Refused([Reason("OS730", file.name, f"it is not of one model by {DIGEST}")])
        left = said.subjects[0].digest[DIGEST]
        found.append(one)
    if found[0].planned not in (None, len(found)):
        text = f"{found[0].planned} rounds were planned, {len(found)} are here"
        raise Refused([Reason("OS540", "the last round", text)])
    if last is not None and tensors_digest(last) != left:
        raise Refused([Reason("OS541", "the last model", f"it is not what round {len(found)} left")])
    return tuple(found)


def read_tensors(path: Path) -> Tensors:
    """The tensors of a safetensors file under the names that it has, as `tensors_digest` takes them.

    Raises FormatError where it is damaged, or has a type that NumPy does not know.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        raise FormatError(
            f"'{path.name}' cannot be read for its digest: {error}",
            hint=KNOWN,
        ) from error
    # Another library may have taught NumPy more types, which have no names of their own in the digest.
    for name, tensor in found.items():
        if tensor.dtype.kind not in "biufc":
            raise FormatError(f"'{shown(name)}' is {tensor.dtype}, which has no digest", hint=KNOWN)
    return found


def _number(file: Path) -> int:
    found = re.fullmatch(r"round-([0-9]{1,9})\.json", file.name)
    if found is None:
        raise FormatError(f"'{shown(file.name)}' is no name of a round", hint=NAMES)
    return int(found[1])


def _parsed(said: Said, where: str) -> RoundStatement:
    value: Mapping[str, Any] = said.predicate
    try:
        return RoundStatement.model_validate(value)
    except ValidationError as error:
        raise Refused([Reason("OS730", where, f"it is no statement of a round: {first_error(error)}")]) from error
