"""One contract for every engine: same sorted results, and no job can take another with it."""

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_case import MAKERS, alive, job, run, written

from ostiary.core.errors import ConfigError, MissingExtra
from ostiary.engines import Engine, make_engine, schedule


@pytest.fixture(scope="module", params=MAKERS)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with MAKERS[request.param](request) as made:
        yield made


def test_follows_the_protocol(engine: Engine) -> None:
    assert isinstance(engine, Engine) and engine.slots >= 1
    assert engine.take(timeout=0.01) is None


def test_results_do_not_depend_on_the_engine(engine: Engine) -> None:
    done = run(engine, *(job(f"j{i}", "double", x=i) for i in range(5)))
    assert [(key, done[key].status, done[key].value) for key in sorted(done)] == [
        (f"j{i}", "ok", 2 * i) for i in range(5)
    ]
    assert all(one.seconds > 0 and one.peak_bytes > 2**20 for one in done.values())


def test_every_kind_of_end_is_told_and_hurts_nobody_else(engine: Engine) -> None:
    done = run(
        engine,
        job("ours", "fail", kind="ours"),
        job("theirs", "fail", kind="other"),
        job("killed", "kill", signum=int(signal.SIGKILL)),
        job("segfault", "kill", signum=int(signal.SIGSEGV)),
        job("left", "leave", code=7),
        job("slow", "sleep", seconds=60, timeout=1.0),
        job("greedy", "fill", gib=8, memory=4 * 2**30),
        job("nowhere", "no_such_function"),
        job("fine", "double", x=4),
    )
    told = {key: (one.status, one.reason) for key, one in done.items()}
    assert told["ours"] == ("failed", "no such class (name another)")
    assert told["theirs"] == ("failed", "ValueError: a method's own mistake")
    assert told["killed"] == ("crashed", "the process was ended by SIGKILL")
    assert told["segfault"] == ("crashed", "the process was ended by SIGSEGV")
    assert told["left"] == ("crashed", "the process ended with exit code 7 and no answer")
    assert told["slow"] == ("timeout", "not done after 1 s")
    assert told["greedy"][0] == "memory" and "memory" in told["greedy"][1]
    assert told["nowhere"][0] == "failed" and "no_such_function" in told["nowhere"][1]
    assert done["fine"].value == 8
    assert done["slow"].seconds < 20


def test_a_limit_that_is_kept_does_no_harm(engine: Engine) -> None:
    done = run(engine, job("small", "fill", gib=0.01, memory=4 * 2**30, timeout=60.0))
    assert done["small"].status == "ok"


def test_needs_come_first_and_what_cannot_run_is_blocked(engine: Engine) -> None:
    ended = list(
        schedule(
            engine,
            [
                job("third", "double", x=3, needs=("second",)),
                job("second", "double", x=2, needs=("first",)),
                job("first", "double", x=1),
                job("bad", "fail", kind="ours"),
                job("after bad", "double", x=5, needs=("bad", "first")),
                job("after that", "double", x=6, needs=("after bad",)),
            ],
        )
    )
    order = [done.key for done in ended]
    assert order.index("first") < order.index("second") < order.index("third")
    blocked = {done.key: done.reason for done in ended if done.status == "blocked"}
    reason = "what it needs ended with failed: no such class (name another)"
    assert blocked == dict.fromkeys(("after bad", "after that"), reason)
    assert len(order) == len(set(order)) == 6


def test_what_was_finished_before_is_not_asked_for_again(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "lines"
    jobs = [job("late", "append", file=str(file), word="late", needs=("early",))]
    assert [done.key for done in schedule(engine, jobs, finished=["early"])] == ["late"]
    assert file.read_text(encoding="utf-8") == "late\n"


def test_a_sealed_job_has_nothing_of_the_attacks(engine: Engine) -> None:
    done = run(
        engine,
        job("open", "where", threads=2),
        job("sealed", "where", sealed=True, threads=1),
        job("thief", "reach", sealed=True, module="ostiary.attacks"),
        job("bench", "reach", sealed=True, module="ostiary.bench.metrics"),
    )
    assert done["open"].value == {"sealed": False, "threads": 2, "bench": False}
    assert done["sealed"].value == {"sealed": True, "threads": 1, "bench": False}
    for key in ("thief", "bench"):
        assert done[key].status == "failed" and "may not import" in done[key].reason


def test_needs_that_nothing_meets_are_refused(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="needs 'nobody'"):
        run(engine, job("lonely", "double", x=1, needs=("nobody",)))
    with pytest.raises(ConfigError, match="in a circle"):
        run(engine, job("a", "double", x=1, needs=("b",)), job("b", "double", x=1, needs=("a",)))


def test_values_travel_as_json(engine: Engine) -> None:
    done = run(engine, job("pair", "echo", value=(1, None)), job("object", "fail", kind="object"))
    assert done["pair"].value == [1, None]
    assert done["object"].status == "failed" and "JSON" in done["object"].reason


@pytest.mark.parametrize("name", MAKERS)
def test_leaving_ends_what_still_runs(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    mark = tmp_path / "pid"
    with MAKERS[name](request) as engine:
        engine.submit(job("long", "sleep", seconds=600, mark=str(mark)))
        pid = int(written(mark))
    deadline = time.monotonic() + 20
    while alive(pid):
        assert time.monotonic() < deadline, "the job outlived its engine"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("lokal", {}, ("no engine is called 'lokal'", "did you mean 'local'?")),
        ("local", {"address": "auto"}, ("the engine 'local' has no option 'address'", "known: slots")),
    ],
)
def test_unknown_engines_and_options_are_refused(name: str, options: dict[str, str], words: tuple[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        make_engine(name, **options)
    assert (str(caught.value), caught.value.hint) == words


def test_an_engine_is_made_by_its_name() -> None:
    with make_engine("local", slots=1, address=None) as made:
        assert isinstance(made, Engine) and made.slots == 1


@pytest.mark.parametrize(("name", "package", "extra"), [("ray", "ray", "cluster"), ("slurm", "submitit", "slurm")])
def test_a_missing_extra_is_named(name: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra) as caught:
        make_engine(name)
    assert caught.value.hint == f"pip install 'ostiary[{extra}]'"
