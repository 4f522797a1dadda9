"""Statements about sets and trainings, the index of them, and what trace, impact and admission are told."""

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ostiary.core.errors import ConfigError
from ostiary.provenance.envelope import sign
from ostiary.provenance.keys import new_key, read_private
from ostiary.provenance.refusal import Refused
from ostiary.provenance.samples.index import Index
from ostiary.provenance.samples.leaf import Sample, content_of_bytes
from ostiary.provenance.samples.lineage import Answer, Lineage, affected, contradictions
from ostiary.provenance.samples.manifest import About, Summary, write_manifest
from ostiary.provenance.samples.statements import Link, check_stated, hear, hear_set, state_set, state_training
from ostiary.provenance.trust import Trust, read_trust

MODELS = {name: f"{number:02x}" * 32 for number, name in enumerate(["model", "adapter", "merged", "other"], 1)}


@dataclass
class World:
    """A folder with keys of a data owner and a producer, an index, and a trust store."""

    root: Path
    version: int = 0

    def __post_init__(self) -> None:
        for name in ("owner", "producer", "stranger"):
            new_key(self.root / name)
        self.index = Index(self.root / "index")
        self.trust = self.store()

    def store(self, text: str = "", *, roles: Sequence[str] = ("data-owner", "producer")) -> Trust:
        self.version += 1
        identities = "".join(
            f'[[identity]]\nname = "{name}"\nkey = "{name}.pub"\nroles = ["{role}"]\n'
            for name, role in zip(("owner", "producer"), roles, strict=True)
        )
        (self.root / "trust.toml").write_text(
            f'id = "team"\nversion = {self.version}\nexpires = 2099-01-01T00:00:00Z\n{identities}\n{text}\n'
        )
        return read_trust(self.root / "trust.toml")

    def signed(self, payload: bytes, key: str) -> bytes:
        return sign(payload, [read_private(self.root / f"{key}.key")]).to_json()

    def manifest(self, name: str, rows: Sequence[tuple[str, str]]) -> tuple[Path, Summary]:
        """A set of ids with sources; the content is the id."""
        path = self.root / f"{name}.manifest"
        samples = [Sample(one, content_of_bytes(one.encode()), "a", source) for one, source in rows]
        return path, write_manifest(path, About(name=name, kind="text"), samples)

    def add(self, data: bytes) -> Any:
        return self.index.add_statement(data, self.trust, "s", state=self.root / "state")

    def add_set(self, name: str, rows: Sequence[tuple[str, str]], *, manifest: bool = True) -> str:
        path, summary = self.manifest(name, rows)
        self.add(self.signed(state_set(summary), "owner"))
        if manifest:
            self.index.add_manifest(path, self.trust, state=self.root / "state")
        return summary.root.hex()

    def train(self, name: str, *, data: dict[str, str] | None = None, bases: Sequence[str] = ()) -> None:
        sets = [Link(name=one, root=root) for one, root in (data or {}).items()]
        links = [Link(name=one, root=MODELS[one]) for one in bases]
        self.add(self.signed(state_training(name, MODELS[name], data=sets, bases=links), "producer"))

    def lineage(self, trust: Trust | None = None) -> Lineage:
        return Lineage(self.index, trust or self.trust, state=self.root / "state")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def trained(world: World) -> World:
    """Two sets; a model of the first, an adapter on it, a merge of both, and another model of the second set."""
    web = world.add_set("photos", [("p1", "web"), ("p2", "web"), ("both", "shop")])
    shop = world.add_set("goods", [("g1", "shop"), ("both", "shop")])
    world.train("model", data={"photos": web})
    world.train("adapter", bases=["model"])
    world.train("merged", bases=["adapter", "model"])
    world.train("other", data={"goods": shop})
    return world


def codes(call: Callable[[], Any]) -> set[str]:
    with pytest.raises(Refused) as caught:
        call()
    return {reason.code for reason in caught.value.reasons}


def names(answer: Answer) -> list[str]:
    return [one.name for one in answer.models]


def test_a_sample_leads_to_sources_sets_and_models(trained: World) -> None:
    answer = trained.lineage().trace("p1")
    assert [(one.set, one.id, one.source, one.label) for one in answer.places] == [("photos", "p1", "web", "a")]
    assert names(answer) == ["model", "adapter", "merged"] and answer.models[0].by == ("producer",)
    assert answer.models[2].through == ("adapter", "model")
    assert not answer.reasons and not answer.missing
    both = trained.lineage().trace("both")
    assert {one.set for one in both.places} == {"photos", "goods"} and set(names(both)) == set(MODELS)
    digest = content_of_bytes(b"p1").hex()
    assert trained.lineage().trace(digest).places == answer.places
    (trained.root / "found.txt").write_text("p1")
    assert trained.lineage().trace(str(trained.root / "found.txt")).places == answer.places
    none = trained.lineage().trace("p9")
    assert not (none.places or none.sets or none.models or none.missing)


def test_a_source_a_set_or_a_model_leads_to_all_that_learnt_from_it(trained: World) -> None:
    lineage = trained.lineage()
    (photos,) = (one.root for one in lineage.known.sets if one.what.name == "photos")
    assert names(lineage.impact("web")) == ["model", "adapter", "merged"]
    assert set(names(lineage.impact("shop"))) == set(MODELS)
    assert names(lineage.impact(photos)) == ["model", "adapter", "merged"]
    assert names(lineage.impact(MODELS["adapter"])) == ["merged"]
    assert names(lineage.impact(content_of_bytes(b"g1").hex())) == ["other"]
    assert names(lineage.impact("nobody")) == [] == names(lineage.impact("00" * 32))


def test_only_statements_that_are_trusted_now_count(trained: World) -> None:
    strangers = trained.signed(
        state_training("other", MODELS["other"], bases=[Link(name="x", root="ee" * 32)]), "stranger"
    )
    assert codes(lambda: trained.add(strangers)) == {"OS725"}
    before = trained.lineage()
    # Put beside the others by hand, it does not count either, and leaves a gap.
    path = trained.index.folder / "statements" / f"{hashlib.sha256(strangers).hexdigest()}.json"
    path.write_bytes(strangers)
    after = trained.lineage()
    assert after.known.trainings == before.known.trainings
    assert [one.code for one in after.known.uncounted] == ["OS725"] and after.trace("p1").missing
    path.unlink()
    key = read_private(trained.root / "producer.key").public_key.keyid
    revoked = trained.store(f'[revoked]\nkeys = ["{key}"]')
    answer = trained.lineage(revoked).impact("web")
    assert names(answer) == [] and len(answer.missing) == 4 and "OS740" in answer.missing[0]


def test_each_role_signs_its_own(world: World) -> None:
    _, summary = world.manifest("photos", [("a", "web")])
    about_set, about_model = state_set(summary), state_training("m", "ab" * 32, data=[Link(name="s", root="cd" * 32)])
    state = world.root / "state"
    assert hear(world.signed(about_set, "owner"), world.trust, "s", state=state).what.name == "photos"
    assert hear(world.signed(about_model, "producer"), world.trust, "s", state=state).what.name == "m"
    assert codes(lambda: hear(world.signed(about_set, "producer"), world.trust, "s", state=state)) == {"OS745"}
    assert codes(lambda: hear(world.signed(about_model, "owner"), world.trust, "s", state=state)) == {"OS745"}
    assert codes(lambda: hear_set(world.signed(about_model, "producer"), world.trust, "s", state=state)) == {"OS729"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda s: None, None),
        (lambda s: s.update(predicateType="ostiary:data-set/v2"), "OS729"),
        (lambda s: s["predicate"].pop("kind"), "OS730"),
        (lambda s: s["predicate"].update(extra=1), "OS730"),
        (lambda s: s["predicate"].update(samples=3), "OS730"),
        (lambda s: s["predicate"].update(sources={}), "OS730"),
        (lambda s: s["predicate"].update(labels={"a": 3}), "OS730"),
        (lambda s: s["predicate"].update(samples="2"), "OS730"),
        (lambda s: s["predicate"].update(name="other"), "OS730"),
        (lambda s: s["subject"].append(s["subject"][0]), "OS730"),
        (lambda s: s["subject"][0].update(digest={"sha256": "ab" * 32}), "OS731"),
        (lambda s: s["subject"][0]["digest"].update(ostiarySamplesV1="AB" * 32), "OS731"),
        (lambda s: s["predicate"].update(created="2098-01-01T00:00:00Z"), "OS747"),
    ],
)
def test_statements_that_are_ill_formed_are_refused(
    world: World, change: Callable[[Any], Any], code: str | None
) -> None:
    _, summary = world.manifest("photos", [("a", "web"), ("b", "web")])
    statement = json.loads(state_set(summary))
    change(statement)
    data = world.signed(json.dumps(statement).encode(), "owner")
    if code is None:
        assert world.add(data).root == summary.root.hex()
    else:
        assert codes(lambda: world.add(data)) == {code}


def test_what_cannot_be_stated(world: World) -> None:
    with pytest.raises(ConfigError, match="at least one data set or base"):
        state_training("m", "ab" * 32)
    with pytest.raises(ConfigError, match="cannot be stated"):
        state_training("m", "ab" * 32, bases=[Link(name="b", root="cd" * 32)], seed=-1)
    with pytest.raises(ConfigError, match="cannot be stated"):
        state_training("a/b", "ab" * 32, bases=[Link(name="b", root="cd" * 32)])


def test_a_manifest_must_be_the_one_that_was_signed(world: World) -> None:
    path, summary = world.manifest("photos", [("a", "web"), ("b", "web")])
    said = world.add(world.signed(state_set(summary), "owner"))
    check_stated(said, summary, "m")
    other, summary_ = world.manifest("others", [("a", "web"), ("b", "shop")])
    assert codes(lambda: check_stated(said, summary_, "m")) == {"OS754"}
    assert codes(lambda: world.index.add_manifest(other, world.trust, state=world.root / "state")) == {"OS754"}
    # The same samples under another name: the root alone is not enough.
    renamed = world.root / "renamed"
    write_manifest(
        renamed, About(name="mine", kind="text"), [Sample(i, content_of_bytes(i.encode()), "a", "web") for i in "ab"]
    )
    assert codes(lambda: world.index.add_manifest(renamed, world.trust, state=world.root / "state")) == {"OS754"}
    world.index.add_manifest(path, world.trust, state=world.root / "state")
    assert world.index.by_id(said.root, "b") is not None


def test_what_was_revoked_after_training_speaks_against_every_model(trained: World) -> None:
    state = trained.root / "state"
    for root in MODELS.values():
        assert affected(trained.index, root, trained.trust, state=state) == []
    photos = next(one.root for one in trained.lineage().known.sets if one.what.name == "photos")
    for text, spoken in (
        ('sources = ["web"]', {"model", "adapter", "merged"}),
        ('sources = ["shop"]', {"model", "adapter", "merged", "other"}),
        (f'sets = ["{photos}"]', {"model", "adapter", "merged"}),
        (f'models = ["{MODELS["adapter"]}"]', {"merged"}),
        ('sources = ["elsewhere"]', set()),
    ):
        trust = trained.store(f"[revoked]\n{text}")
        found = {name: affected(trained.index, root, trust, state=state) for name, root in MODELS.items()}
        assert {name for name, reasons in found.items() if reasons} == spoken, text
        assert {reason.code for reasons in found.values() for reason in reasons} <= {"OS768"}
    trust = trained.store('[revoked]\nsources = ["web"]')
    assert {one.code for one in trained.lineage(trust).impact("web").reasons} == {"OS768"}
    assert {one.code for one in trained.lineage(trust).trace("p2").reasons} == {"OS768"}
    assert not trained.lineage(trust).trace("g1").reasons


def test_a_set_that_nobody_described_is_a_gap_and_with_revoked_sources_a_reason(world: World) -> None:
    world.train("model", data={"unknown": "ab" * 32})
    answer = world.lineage().impact("web")
    assert not answer.models and "unknown" in answer.missing[0]
    state = world.root / "state"
    assert affected(world.index, MODELS["model"], world.trust, state=state) == []
    trust = world.store('[revoked]\nsources = ["web"]')
    assert [one.code for one in affected(world.index, MODELS["model"], trust, state=state)] == ["OS768"]
    assert not world.lineage(trust).impact("ab" * 32).missing
    # An old trust store does not make gaps: it answers nothing.
    assert codes(lambda: world.lineage().impact("web")) == {"OS742"}


def test_a_base_that_nobody_described_is_with_something_revoked_a_reason(world: World) -> None:
    world.train("adapter", bases=["model"])
    assert not world.lineage().affected(MODELS["adapter"])
    for text in ('sources = ["web"]', f'sets = ["{"7" * 64}"]'):
        world.trust = world.store(f"[revoked]\n{text}")
        found = world.lineage().affected(MODELS["adapter"])
        assert [one.code for one in found] == ["OS768"] and "nothing here says" in found[0].message
    root = world.add_set("photos", [("a", "shop")])
    world.train("model", data={"photos": root})
    assert not world.lineage().affected(MODELS["adapter"])


def test_a_set_without_its_manifest_is_a_gap_of_trace_alone(world: World) -> None:
    world.add_set("photos", [("p1", "web")], manifest=False)
    assert "manifest" in world.lineage().trace("p1").missing[0]
    assert not world.lineage().impact("web").missing and world.lineage().impact("web").sets


def test_statements_that_contradict_are_told(trained: World) -> None:
    assert not trained.lineage().impact("web").reasons
    trained.train("adapter", bases=["other"])
    answer = trained.lineage().impact("web")
    assert [one.code for one in answer.reasons] == ["OS767"] and "adapter" in answer.reasons[0].subject
    # Until it is settled both are reckoned with.
    assert set(names(answer)) == {"model", "adapter", "merged"}
    assert "adapter" in names(trained.lineage().impact(MODELS["other"]))
    state = trained.root / "state"
    assert {one.code for one in affected(trained.index, MODELS["merged"], trained.trust, state=state)} == {"OS767"}
    assert affected(trained.index, MODELS["other"], trained.trust, state=state) == []


def test_two_statements_about_one_set_or_one_version_contradict(world: World) -> None:
    _, summary = world.manifest("photos", [("a", "web"), ("b", "web")])
    world.add(world.signed(state_set(summary, version=1), "owner"))
    world.add(world.signed(state_set(summary, version=1, created=datetime.now(UTC) - timedelta(days=1)), "owner"))
    assert not world.lineage().impact("web").reasons
    other = json.loads(state_set(summary, version=1))
    other["predicate"]["sources"] = {"web": 1, "shop": 1}
    world.add(world.signed(json.dumps(other).encode(), "owner"))
    assert [one.code for one in world.lineage().impact("web").reasons] == ["OS767"]
    _, second = world.manifest("more", [("c", "net")])
    renamed = json.loads(state_set(second, version=1))
    renamed["subject"][0]["name"] = renamed["predicate"]["name"] = "photos"
    world.add(world.signed(json.dumps(renamed).encode(), "owner"))
    found = world.lineage()
    assert any("version 1 is" in one.message for one in found.impact("net").reasons)
    assert not found.trace("zzz").reasons
    assert {one.code for one in contradictions(found.known)} == {"OS767"}


def test_each_of_two_statements_that_contradict_is_asked_for_its_sources(world: World) -> None:
    _, summary = world.manifest("photos", [("a", "web")])
    for source in ("web", "shop"):
        stated = json.loads(state_set(summary))
        stated["predicate"]["sources"] = {source: 1}
        world.add(world.signed(json.dumps(stated).encode(), "owner"))
    for source in ("web", "shop"):
        found = world.lineage().impact(source)
        assert [one.name for one in found.sets] == ["photos"] and [one.code for one in found.reasons] == ["OS767"]


def databases(world: World) -> list[Path]:
    return sorted((world.index.folder / "sets").glob("*.sqlite"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"no database"),
        lambda path: path.write_bytes(path.read_bytes()[:-4096]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"p1", b"p7")),
        lambda path: path.unlink(),
    ],
)
def test_a_damaged_index_is_noticed_and_made_again(trained: World, damage: Callable[[Path], Any]) -> None:
    before = trained.lineage().trace("p1")
    files = {path.name: path.read_bytes() for path in databases(trained)}
    assert trained.index.mended == []
    for path in databases(trained):
        damage(path)
    altered = [
        name for name in files if {path.name: path.read_bytes() for path in databases(trained)}.get(name) != files[name]
    ]
    assert trained.lineage().trace("p1") == before
    assert altered and sorted(one.partition(".")[0] for one in altered) == sorted(trained.index.mended)
    assert {path.name: path.read_bytes() for path in databases(trained)} == files


def test_rebuilding_gives_the_same_index(trained: World) -> None:
    before = {path.name: path.read_bytes() for path in databases(trained)}
    (trained.index.folder / "sets" / ".build.left").mkdir()
    for path in databases(trained):
        path.unlink()
    assert len(trained.index.rebuild()) == 2
    assert {path.name: path.read_bytes() for path in databases(trained)} == before
    assert not list((trained.index.folder / "sets").glob(".*"))


def test_a_kept_manifest_that_was_altered_is_refused(trained: World) -> None:
    for path in (trained.index.folder / "sets").glob("*.manifest"):
        data = bytearray(path.read_bytes())
        data[-40] ^= 1
        path.write_bytes(data)
    assert trained.lineage().trace("p1").places  # the databases are still those that were made
    assert codes(trained.index.rebuild) <= {"OS751", "OS753"}
    first, _ = sorted((trained.index.folder / "sets").glob("*.manifest"))
    trained.manifest("new", [("z", "web")])
    first.write_bytes((trained.root / "new.manifest").read_bytes())
    assert codes(trained.index.rebuild) == {"OS753"}


def test_a_statement_that_went_missing_or_was_altered_is_a_gap(trained: World) -> None:
    first, second, *_ = sorted((trained.index.folder / "statements").glob("*.json"))
    data = first.read_bytes()
    first.unlink()
    assert [one.code for one in trained.lineage().known.uncounted] == ["OS701"]
    for other in (data + b" ", second.read_bytes()):
        first.write_bytes(other)
        assert [one.code for one in trained.lineage().known.uncounted] == ["OS701"]
    first.write_bytes(data)
    assert trained.lineage().known.uncounted == ()


KILLED = """
import sys, time
from ostiary.provenance.samples import {module}
from ostiary.provenance.samples.index import Index
from ostiary.provenance.samples.manifest import About, SampleManifest, write_manifest
from ostiary.provenance.samples.leaf import Sample, content_of_bytes
from ostiary.provenance.trust import read_trust
from pathlib import Path
root = Path({root!r})

def endless(seen):
    for number, one in enumerate(seen):
        if number == 2:
            print("half", flush=True)
            time.sleep(60)
        yield one

{body}
"""
MAKE = """
samples = [Sample(str(n), content_of_bytes(b"x"), "a", "s") for n in range(9)]
manifest._merged = lambda *rows, real=manifest._merged: endless(real(*rows))
write_manifest(root / "new.manifest", About(name="new", kind="text"), samples)
"""
ADD = """
real = SampleManifest.samples
SampleManifest.samples = lambda self, **how: endless(real(self, **how))
Index(root / "index").add_manifest(root / "new.manifest", read_trust(root / "trust.toml"), state=root / "state")
"""


def killed_half_way(world: World, module: str, body: str) -> None:
    code = KILLED.format(module=module, root=str(world.root), body=body)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "half\n"
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait(20) == -signal.SIGKILL


def test_a_kill_while_a_manifest_is_written_leaves_none(trained: World) -> None:
    before = (trained.root / "photos.manifest").read_bytes()
    killed_half_way(trained, "manifest", MAKE)
    assert not (trained.root / "new.manifest").exists()
    assert (trained.root / "photos.manifest").read_bytes() == before
    trained.manifest("new", [("z", "web")])


def test_a_kill_while_a_set_is_indexed_loses_nothing_that_was_there(trained: World) -> None:
    before = trained.lineage().trace("both")
    path, summary = trained.manifest("new", [(str(number), "web") for number in range(9)])
    trained.add(trained.signed(state_set(summary), "owner"))
    killed_half_way(trained, "index", ADD)
    after = trained.lineage()
    assert after.trace("both").places == before.places and len(after.known.sets) == 3
    # The manifest was kept; what was to be made of it is made when it is asked for.
    assert [one.set for one in after.trace("7").places] == ["new"]
    assert len(trained.index.mended) == 1
    trained.index.add_manifest(path, trained.trust, state=trained.root / "state")
    trained.index.rebuild()
    assert not list((trained.index.folder / "sets").glob(".*"))


def test_the_index_is_plain_sqlite(trained: World) -> None:
    with sqlite3.connect(databases(trained)[0]) as database:
        assert database.execute("SELECT count(*) FROM sample").fetchone()[0] in (2, 3)
    database.close()
    assert str(trained.root).encode() not in b"".join(path.read_bytes() for path in databases(trained))
