"""The hostile-file kit against the inspection: each file refused for its own reason, benign ones passed, none run."""

from collections import Counter
from pathlib import Path

import pytest

from ostiary.bench.hostile import FAMILIES, BenignFile, HostileFile, benign_files, hostile_files
from ostiary.core.codes import CODES
from ostiary.core.errors import FormatError
from ostiary.core.file_refusals import FILE_REFUSALS
from ostiary.provenance.pickles import Inspection, inspect_bytes, inspect_file

Found = list[tuple[HostileFile, Inspection]]


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kit") / "canary"


@pytest.fixture(scope="module")
def hostile(canary: Path) -> Found:
    return [(one, inspect_bytes(memoryview(one.data), one.name)) for one in hostile_files(canary)]


@pytest.fixture(scope="module")
def benign() -> dict[str, BenignFile]:
    return {one.name: one for one in benign_files()}


def test_every_hostile_file_is_refused_for_its_own_reason(hostile: Found) -> None:
    missed = [
        f"{one.name}: wanted {one.code}, found {[reason.code for reason in found.reasons]}"
        for one, found in hostile
        if one.code not in {reason.code for reason in found.reasons}
    ]
    assert not missed, "\n".join(missed)


def test_no_benign_file_is_refused(benign: dict[str, BenignFile]) -> None:
    refused = {name: inspect_bytes(memoryview(one.data), name).reasons for name, one in benign.items()}
    assert not {name: [str(one) for one in reasons] for name, reasons in refused.items() if reasons}


def test_the_kit_is_as_large_as_it_says(hostile: Found, benign: dict[str, BenignFile]) -> None:
    counted = Counter(one.family for one, _ in hostile)
    assert set(counted) == set(FAMILIES)
    assert counted[FAMILIES[0]] >= 76 and sum(counted.values()) >= 300 and len(benign) >= 30
    names = Counter(one.name for one, _ in hostile)
    assert max(names.values()) == 1 and not set(names) & set(benign)
    assert {one.twin for one, _ in hostile if one.twin} <= set(benign)


def test_every_code_has_a_file_and_an_explanation(hostile: Found) -> None:
    made_for = {one.code for one, _ in hostile}
    # OS127 is said of what the child process of `convert` could not read.
    assert {code.id for code in FILE_REFUSALS} - made_for == {"OS127"}
    for code in FILE_REFUSALS:
        assert CODES[code.id] is code
        assert code.title and code.meaning and code.false_alarms and code.next_step


def test_reasons_can_be_printed(hostile: Found) -> None:
    for one, found in hostile:
        assert found.reasons
        for reason in found.reasons:
            assert str(reason).isprintable() and len(str(reason)) < 600, one.name


def test_nothing_was_run(hostile: Found, canary: Path) -> None:
    assert hostile and not canary.exists()


@pytest.mark.parametrize("name", ["canary-open.pkl", "canary-system.pkl", "canary-exec.pkl"])
def test_the_canary_would_have_sung(hostile: Found, canary: Path, name: str) -> None:
    import pickle

    made = pickle.loads(next(one.data for one, _ in hostile if one.name == name))
    if hasattr(made, "close"):
        made.close()
    assert canary.exists(), "the file must be hostile for the kit to test anything"
    canary.unlink()


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.pt")
    for path in (tmp_path, tmp_path / "pipe.pt", tmp_path / "nowhere.pt"):
        with pytest.raises(FormatError) as caught:
            inspect_file(path)
        assert caught.value.hint


def test_a_file_on_disk_is_inspected_as_its_bytes_are(hostile: Found, tmp_path: Path) -> None:
    one, found = next((one, found) for one, found in hostile if one.name == "payload.pt")
    (tmp_path / one.name).write_bytes(one.data)
    assert inspect_file(tmp_path / one.name) == found
    assert "os.getcwd" in found.globals and "m/data.pkl" in found.members
