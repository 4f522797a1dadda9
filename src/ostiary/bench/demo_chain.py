"""The last part of both demos: models are signed, scans and bills of materials stated, and a policy decides."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ostiary.core.files import write_text
from ostiary.core.records import Record
from ostiary.provenance.admission import admit
from ostiary.provenance.attest import attest_scan
from ostiary.provenance.bill import attest_bom
from ostiary.provenance.bom.card import ModelCardFile
from ostiary.provenance.bom.cyclonedx import Facts, make_bom, to_bytes
from ostiary.provenance.bom.evidence import bind, made_by
from ostiary.provenance.bom.facts import Beside, describe
from ostiary.provenance.decision import Decision
from ostiary.provenance.keys import new_key, read_private
from ostiary.provenance.loader import BOM, SCAN, SIGNATURE, load_verified
from ostiary.provenance.policy import Policy, read_policy
from ostiary.provenance.refusal import Refused
from ostiary.provenance.sign import sign_model

DAYS = 7
"""So long a scan holds in the demo."""
TRUST = """id = "demo"
version = 1
expires = {expires}
[[identity]]
name = "release"
key = "release.pub"
roles = ["producer"]
[[identity]]
name = "lab"
key = "lab.pub"
roles = ["scanner"]
"""
POLICY = """version = 1
trust = "trust.toml"
[scan]
families = ["patch", "phrase"]
[bom]
level = "minimum"
"""


@dataclass(frozen=True, slots=True)
class Chain:
    """What was decided: on loading the unsigned model, a copy with one bit changed, the repaired one; and on admitting.

    `stale` is the twin, a day after its scan has ended.
    """

    unsigned: Decision
    tampered: Decision
    loaded: Decision
    repaired: Decision
    backdoored: Decision
    stale: Decision

    def checks(self) -> list[tuple[str, bool]]:
        """What is claimed, each with whether it came true."""
        return [
            (f"loading the model that nobody signed: {_words(self.unsigned)}", _codes(self.unsigned) == ["OS701"]),
            (f"loading a copy with one bit changed: {_words(self.tampered)}", "OS707" in _codes(self.tampered)),
            (
                f"loading the repaired model, signed and scanned: {_words(self.loaded)}",
                self.loaded.decision == "accepted",
            ),
            (f"admitting the repaired model: {_words(self.repaired)}", self.repaired.decision == "admitted"),
            (
                f"admitting the backdoored model, signed too: {_words(self.backdoored)}",
                _refused(self.backdoored, "OS778", "OS798"),
            ),
            (f"admitting the twin after its scan has ended: {_words(self.stale)}", _refused(self.stale, "OS777")),
        ]


def run_chain(folder: Path, models: Mapping[str, tuple[Path, Record, Record]]) -> Chain:
    """Sign and state the models `repaired`, `backdoored` and `twin`, each given with the records of scan and training.

    Keys, trust store, policy and memory lie in `folder`: the demo leaves nothing in the user's own.
    """
    keys = {name: read_private(new_key(folder / name)[0]) for name in ("release", "lab")}
    now, state = datetime.now(UTC), folder / "state"
    write_text(folder / "trust.toml", TRUST.format(expires=(now + timedelta(days=365)).isoformat(timespec="seconds")))
    write_text(folder / "policy.toml", POLICY)
    policy, public = read_policy(folder / "policy.toml"), folder / "release.pub"
    unsigned = _loaded(models["backdoored"][0], public, state)
    for path, record, training in models.values():
        _write(f"{path}{SIGNATURE}", sign_model(path, [keys["release"]]))
        _write(f"{path}{SCAN}", attest_scan(path, record, [keys["lab"]], _open, days=DAYS))
        bom = _bom(path, record, training)
        write_text(Path(f"{path}.cdx.json"), bom.decode())
        _write(f"{path}{BOM}", attest_bom(path, bom, [keys["release"]]))
    repaired, tampered = models["repaired"][0], _tampered(folder, models["repaired"][0])
    later = now + timedelta(days=DAYS + 1)
    return Chain(
        unsigned,
        _loaded(tampered, policy, state),
        _loaded(repaired, policy, state),
        admit(repaired, policy, state=state),
        admit(models["backdoored"][0], policy, state=state),
        admit(models["twin"][0], policy, state=state, now=later),
    )


def _bom(path: Path, record: Record, training: Record) -> bytes:
    """What a model was made of and how it was examined, as `ostiary bom make` writes it."""
    weights = made_by(record)
    assert weights is not None  # noqa: S101 - the records of the demo are of models
    created = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    card = ModelCardFile(author="ostiary demo", supplier="ostiary demo", licence="CC0-1.0")
    facts = Facts(describe(path), Beside(), card, created, bind([record, training], weights), weights)
    return to_bytes(make_bom(facts, "1.6"))


def _open(path: Path, base: Path | None) -> Any:
    """A model as `ostiary scan` opens it."""
    from ostiary.models.load import load_predictor
    from ostiary.models.text_folder import load_language

    return load_language(path) if path.is_dir() else load_predictor(path)


def _tampered(folder: Path, model: Path) -> Path:
    """A copy of a model with all that was signed about it, in which one bit of the last value is changed."""
    copy = folder / "tampered" / model.name
    copy.parent.mkdir()
    (shutil.copytree if model.is_dir() else shutil.copyfile)(model, copy)
    for suffix in (SIGNATURE, SCAN, BOM):
        shutil.copyfile(f"{model}{suffix}", f"{copy}{suffix}")
    weights = sorted(copy.rglob("*.safetensors")) if copy.is_dir() else [copy]
    with weights[-1].open("r+b") as stream:
        stream.seek(-1, 2)
        last = stream.read(1)[0]
        stream.seek(-1, 2)
        stream.write(bytes([last ^ 1]))
    return copy


def _write(path: str, envelope: Any) -> None:
    write_text(Path(path), envelope.to_json().decode() + "\n")


def _loaded(path: Path, policy: Policy | Path, state: Path) -> Decision:
    try:
        return load_verified(path, policy, state=state).decision
    except Refused as error:
        decision: Decision = error.decision
        return decision


def _refused(decision: Decision, *codes: str) -> bool:
    """Whether it was refused for these reasons and for no others."""
    return decision.decision == "refused" and set(_codes(decision)) == set(codes)


def _codes(decision: Decision) -> Sequence[str]:
    return [reason.code for reason in decision.reasons]


def _words(decision: Decision) -> str:
    reasons = "; ".join(f"{reason.code} {reason.message}" for reason in decision.reasons)
    return f"{decision.decision}{': ' if reasons else ''}{reasons}"[:300]
