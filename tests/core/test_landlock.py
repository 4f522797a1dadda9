"""What the kernel hides is out of reach for native readers and child processes too."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ostiary.core import landlock
from ostiary.engines import Job
from ostiary.engines.isolated import isolated

pytestmark = pytest.mark.skipif(not landlock.available(), reason="this kernel has no Landlock")
WAYS = {"open", "list", "safetensors", "arrow", "torch", "child", "find", "link", "parent"}


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    folder = tmp_path / "store" / "set.truth"
    folder.mkdir(parents=True)
    save_file({"mask": torch.ones(4)}, folder / "trigger.safetensors")
    return folder


def tried(folder: Path, **how: Any) -> dict[str, str]:
    done = isolated(Job(key="thief", call="work:read_natively", args={"folder": str(folder)}, timeout=120.0, **how))
    assert done.status == "ok", done.reason
    found: dict[str, str] = done.value
    assert found.keys() == WAYS
    return found


def test_no_way_leads_to_hidden_truth(truth: Path) -> None:
    found = tried(truth, sealed=True, hidden=(str(truth),))
    assert "got it" not in found.values(), found


def test_the_thief_would_succeed_without_the_seal(truth: Path) -> None:
    found = tried(truth)
    assert {name for name, end in found.items() if end == "got it"} >= WAYS - {"parent"}


def test_the_hook_alone_does_not_see_native_readers(truth: Path) -> None:
    """Why the kernel is asked at all; should this fail one day, the docstring of the seal is out of date."""
    found = tried(truth, sealed=True)
    assert found["open"] == "SealBroken" and found["safetensors"] == "got it"


def test_files_beside_can_be_read_written_and_moved(truth: Path, tmp_path: Path) -> None:
    beside = truth.parent / "work"
    beside.mkdir()
    job = Job(
        key="tidy",
        call="work:tidy",
        args={"folder": str(beside)},
        sealed=True,
        hidden=(str(truth),),
        timeout=60.0,
    )
    done = isolated(job)
    assert (done.status, done.value) == ("ok", "written"), done.reason


def test_a_folder_inside_a_hidden_one_can_be_kept(truth: Path) -> None:
    kept = truth.parent / "own"
    kept.mkdir()
    job = Job(
        key="tidy", call="work:tidy", args={"folder": str(kept)}, sealed=True,
        hidden=(str(truth.parent),), keep=(str(kept),), timeout=60.0,
    )  # fmt: skip
    assert isolated(job).value == "written"
    found = tried(truth, sealed=True, hidden=(str(truth.parent),), keep=(str(kept),))
    assert "got it" not in found.values(), found


def test_methods_can_be_imported_when_the_package_s_folder_has_changed(truth: Path) -> None:
    """Python then lists the folder again, which lies on the way to hidden ones."""
    job = Job(key="late", call="work:import_late", args={}, sealed=True, hidden=(str(truth),), timeout=60.0)
    done = isolated(job)
    assert (done.status, done.value) == ("ok", "ostiary.guard.strip"), done.reason


def test_nothing_to_hide_restricts_nothing() -> None:
    assert landlock.hide([Path("/no/such/folder")]) is True
