"""What only the engine on Slurm promises; submitit runs its jobs on this machine."""

import stat
from pathlib import Path

import pytest
from engine_case import MAKERS, job, run

from ostiary.core.errors import ConfigError
from ostiary.engines import make_engine


def test_a_job_whose_process_is_killed_counts_as_crashed(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MAKERS["slurm"](request) as engine:
        monkeypatch.setattr("submitit.Job._results_timeout_s", 0.1)  # no slow network drive here
        done = run(engine, job("fatal", "outlive"), job("other", "double", x=2))
    assert done["fatal"].status == "crashed" and "Slurm says" in done["fatal"].reason
    assert done["other"].value == 4


def test_what_is_pickled_lies_where_nobody_else_can_put_it(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    with make_engine("slurm", folder=tmp_path / "shared", cluster="local"):
        (jobs,) = (tmp_path / "shared").iterdir()
    assert stat.S_IMODE(jobs.stat().st_mode) == 0o700


def test_without_slurm_there_is_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no Slurm here") as caught:
        make_engine("slurm", folder=tmp_path)
    assert caught.value.hint == "use this engine where srun is found"
