"""The last part of both demos: the repaired model is signed, and nothing else is loaded in its place."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ostiary.core.files import write_text
from ostiary.provenance.decision import Decision
from ostiary.provenance.keys import new_key, read_private
from ostiary.provenance.loader import SIGNATURE, load_verified
from ostiary.provenance.refusal import Refused
from ostiary.provenance.sign import sign_model


@dataclass(frozen=True, slots=True)
class SigningDemo:
    """What trusted loading decided on the signed repaired model, the unsigned one, and a copy with one bit changed."""

    signed: Decision
    unsigned: Decision
    tampered: Decision

    def checks(self) -> list[tuple[str, bool]]:
        """What is claimed, each with whether it came true."""
        return [
            (f"loading the signed repaired model: {_words(self.signed)}", self.signed.decision == "accepted"),
            (f"loading the model that nobody signed: {_words(self.unsigned)}", _codes(self.unsigned) == ["OS701"]),
            (f"loading a copy with one bit changed: {_words(self.tampered)}", _codes(self.tampered) == ["OS707"]),
        ]


def run_signing(folder: Path, repaired: Path, unsigned: Path) -> SigningDemo:
    """Sign `repaired` with a new key in `folder`, and load it, `unsigned`, and an altered copy under that key."""
    private, public = new_key(folder / "release")
    signature = Path(f"{repaired}{SIGNATURE}")
    write_text(signature, sign_model(repaired, [read_private(private)]).to_json().decode() + "\n")
    tampered = folder / "tampered" / repaired.name
    tampered.parent.mkdir()
    if repaired.is_dir():
        shutil.copytree(repaired, tampered)
    else:
        shutil.copyfile(repaired, tampered)
    shutil.copyfile(signature, f"{tampered}{SIGNATURE}")
    _flip(sorted(tampered.rglob("*.safetensors")) if tampered.is_dir() else [tampered])
    return SigningDemo(*(_decided(path, public) for path in (repaired, unsigned, tampered)))


def _flip(files: Sequence[Path]) -> None:
    """Change one bit of the last value of the last tensor."""
    with files[-1].open("r+b") as stream:
        stream.seek(-1, 2)
        last = stream.read(1)[0]
        stream.seek(-1, 2)
        stream.write(bytes([last ^ 1]))


def _decided(path: Path, public: Path) -> Decision:
    try:
        return load_verified(path, public).decision
    except Refused as error:
        decision: Decision = error.decision
        return decision


def _codes(decision: Decision) -> list[str]:
    return [reason.code for reason in decision.reasons]


def _words(decision: Decision) -> str:
    reasons = "; ".join(f"{reason.code} {reason.message}" for reason in decision.reasons)
    return f"{decision.decision}{': ' if reasons else ''}{reasons}"
