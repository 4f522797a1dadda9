"""Statements about scans: what they say, how a policy holds a model against them, and every way that one can fail."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scanned_case import DIGEST, accusation, make_record, opener, state_scan, tried
from signed_case import Signed, make_signed

from ostiary.core.card import FAMILIES
from ostiary.core.codes import CODES
from ostiary.core.errors import ConfigError
from ostiary.provenance.attest import attest_scan
from ostiary.provenance.attested import heard, say
from ostiary.provenance.envelope import opened, sign
from ostiary.provenance.gate import Model, scan_reasons
from ostiary.provenance.loader import Evidence, load_verified
from ostiary.provenance.manifest import digest
from ostiary.provenance.policy import read_policy
from ostiary.provenance.refusal import Refused
from ostiary.provenance.scanned import SCAN, SVR, TEST_RESULT, read_scan
from ostiary.provenance.statement import ROOT, Subject
from ostiary.provenance.trust import read_trust

NOW = datetime.now(UTC)
STORE = """id = "team"
version = 1
expires = 2099-01-01T00:00:00Z
[[identity]]
name = "release"
key = "producer.pub"
roles = ["producer"{more}]
[[identity]]
name = "lab"
key = "second.pub"
roles = ["scanner"]
"""


@pytest.fixture
def signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Signed:
    monkeypatch.setenv("OSTIARY_STATE", str(tmp_path / "state"))
    made = make_signed(tmp_path)
    trust(made)
    return made


def trust(signed: Signed, more: str = "", text: str = "") -> Path:
    path = signed.folder.parent / "trust.toml"
    path.write_text(text + STORE.format(more=more))
    return path


def policy(signed: Signed, scan: str = "") -> Any:
    path = signed.folder.parent / "policy.toml"
    path.write_text(f'version = 1\ntrust = "trust.toml"\n[scan]\n{scan}\n')
    return read_policy(path)


def codes(signed: Signed, scan: str = "", *, scans: Any = None, now: datetime | None = None) -> list[str]:
    """The codes of the reasons against loading under a policy that asks for a scan; empty when the model is loaded."""
    try:
        load_verified(signed.folder, policy(signed, scan), evidence=Evidence(scans=scans), now=now)
    except Refused as error:
        found = [reason.code for reason in error.reasons]
    else:
        return []
    assert set(found) <= set(CODES)
    return found


def predicate(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(opened(path.read_bytes(), "scan").payload)
    return found


def restate(path: Path, key: Any, change: Callable[[dict[str, Any]], Any]) -> None:
    """Sign a statement again with something changed in it."""
    statement = predicate(path)
    change(statement)
    path.write_bytes(sign(json.dumps(statement).encode(), [key]).to_json())


def test_a_scan_is_stated_with_what_it_looked_for_and_what_not(signed: Signed) -> None:
    where = state_scan(signed.folder, signed.keys["second"])
    said = heard(where.read_bytes(), read_trust(trust(signed)), "scanner", [SCAN], "scan")
    scan = read_scan(said, "scan")
    assert said.subjects[0].digest == {ROOT: digest(signed.folder).root.hex()}
    assert (said.signers, scan.verdict, scan.name) == (("lab",), "none-found", "model")
    assert scan.scope.familiesCovered == ("patch", "warp")
    assert set(scan.scope.familiesCovered) | set(scan.scope.familiesNotCovered) == set(FAMILIES["images"])
    assert scan.scope.trustedSamples == 20 and scan.modelSha256 == DIGEST
    assert scan.expires - scan.created == timedelta(days=90)
    assert all(one.blindSpots for one in scan.results)


def test_a_family_counts_where_a_method_examined_every_class(signed: Signed) -> None:
    half = tried("scan.neural-cleanse", classes=1)
    where = state_scan(signed.folder, signed.keys["second"], results=[half, tried("scan.warp-trigger")])
    assert predicate(where)["predicate"]["scope"]["familiesCovered"] == ["warp"]


def test_what_is_stated_was_scanned(signed: Signed) -> None:
    other = SimpleNamespace(digest="c" * 64)
    with pytest.raises(ConfigError, match="about another model"):
        attest_scan(signed.folder, make_record(), [signed.keys["second"]], lambda path, base: other)
    for record, words in (
        (make_record(kind="screen"), "not of a scan"),
        (make_record(interrupted=True), "no finished scan"),
        (make_record(results=[]), "no finished scan"),
        (make_record(verdict=None, results=[tried("scan.neural-cleanse")]), "not of a scan"),
    ):
        with pytest.raises(ConfigError, match=words):
            attest_scan(signed.folder, record, [signed.keys["second"]], opener)


@pytest.mark.parametrize(
    "how", [{"name": "a/b"}, {"name": "x" * 201}, *({"days": days} for days in (float("inf"), float("nan"), 4e6, -1))]
)
def test_a_name_or_an_end_that_cannot_be_stated_is_no_crash(signed: Signed, how: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"no name|cannot be stated"):
        state_scan(signed.folder, signed.keys["second"], **how)


def test_a_repair_is_stated_by_its_scan_of_the_repaired_model(signed: Signed) -> None:
    digests = {"model": "a" * 64, "repaired": DIGEST}
    results = [tried("repair.clp"), tried("scan.neural-cleanse")]
    where = state_scan(
        signed.folder, signed.keys["second"], record=make_record(kind="repair", digests=digests, results=results)
    )
    assert [one["method"] for one in predicate(where)["predicate"]["results"]] == ["scan.neural-cleanse"]
    digests = {"model": DIGEST, "repaired": "a" * 64}
    with pytest.raises(ConfigError, match="about another model"):
        state_scan(
            signed.folder, signed.keys["second"], record=make_record(kind="repair", digests=digests, results=results)
        )


@pytest.mark.parametrize("verdict", ["none-found", "suspect", "backdoor", "incomplete"])
def test_generic_predicates_never_make_a_pass_of_anything_else(signed: Signed, verdict: Any) -> None:
    key, passed = signed.keys["second"], verdict == "none-found"
    where = state_scan(signed.folder, key, verdict, form="test-result")
    found = predicate(where)
    assert found["predicateType"] == TEST_RESULT
    assert (found["predicate"]["result"] == "PASSED") is passed
    assert found["predicate"]["configuration"][0]["digest"].keys() == {"sha256"}
    if passed:
        simple = predicate(state_scan(signed.folder, key, verdict, form="svr"))
        assert simple["predicateType"] == SVR
        assert "OSTIARY_LOOKED_FOR_PATCH" in simple["predicate"]["properties"]
    else:
        with pytest.raises(ConfigError, match="no place for the verdict"):
            state_scan(signed.folder, key, verdict, form="svr")


def test_a_single_file_is_known_to_others_by_its_sha256(signed: Signed) -> None:
    file = signed.folder / "model-1.safetensors"
    where = state_scan(file, signed.keys["second"], out=signed.folder.parent / "one.scan")
    assert predicate(where)["subject"][0]["digest"]["sha256"] == digest(file).files[0].digest.hex()


def test_a_policy_without_scan_asks_for_none(signed: Signed) -> None:
    path = signed.folder.parent / "plain.toml"
    path.write_text('version = 1\ntrust = "trust.toml"\n')
    assert load_verified(signed.folder, path).decision.decision == "accepted"


def test_a_fresh_passing_scan_lets_the_model_pass(signed: Signed) -> None:
    assert codes(signed) == ["OS775"]
    state_scan(signed.folder, signed.keys["second"])
    assert codes(signed, 'families = ["patch", "phrase"]\nmin_version = "0.1"') == []


@pytest.mark.parametrize(("verdict", "code"), [("suspect", "OS778"), ("backdoor", "OS778"), ("incomplete", "OS779")])
def test_a_scan_that_did_not_pass_refuses(signed: Signed, verdict: Any, code: str) -> None:
    state_scan(signed.folder, signed.keys["second"], verdict)
    assert codes(signed) == [code]


def test_a_scan_of_other_bytes_refuses(signed: Signed, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = make_signed(tmp_path / "other")
    (other.folder / "config.json").write_text("{}")
    state_scan(other.folder, signed.keys["second"], out=Path(f"{signed.folder}.scan"))
    assert codes(signed) == ["OS776"]


def test_a_scan_of_an_adapter_counts_on_its_own_base(signed: Signed) -> None:
    root = digest(signed.folder).root.hex()
    where = state_scan(signed.folder, signed.keys["second"], base=signed.folder / "tokenizer")
    below = digest(signed.folder / "tokenizer").root.hex()
    for base, expected in ((below, []), (None, ["OS776"]), ("b" * 64, ["OS776"])):
        reasons, _ = scan_reasons(
            [where], Model(root, base, None, "model"), policy(signed, "separate = false"), now=datetime.now(UTC)
        )
        assert [one.code for one in reasons] == expected


@pytest.mark.parametrize(
    ("days", "scan", "expected"),
    [
        (0, "", []),
        (89, "", []),
        (91, "max_age_days = 900", ["OS777"]),  # past its own end
        (40, "max_age_days = 30", ["OS777"]),  # too old for the policy
        (-2, "", ["OS777"]),  # of the future, or the clock was set back
    ],
)
def test_time(signed: Signed, days: int, scan: str, expected: list[str]) -> None:
    where = state_scan(signed.folder, signed.keys["second"])
    root = digest(signed.folder).root.hex()
    reasons, told = scan_reasons(
        [where],
        Model(root, None, None, "model"),
        policy(signed, f"separate = false\n{scan}"),
        now=datetime.now(UTC) + timedelta(days=days),
    )
    assert [one.code for one in reasons] == expected
    assert bool(told) == (not expected) and all("not for whole-image" in one for one in told)


def test_an_old_scan_stated_today_is_old(signed: Signed) -> None:
    state_scan(signed.folder, signed.keys["second"], scanned=NOW - timedelta(days=100))
    assert codes(signed) == ["OS777"]
    assert codes(signed, "max_age_days = 120") == []


def test_a_clock_set_back_is_seen(signed: Signed) -> None:
    state_scan(signed.folder, signed.keys["second"])
    assert codes(signed) == []
    assert "OS748" in codes(signed, now=NOW - timedelta(days=2))


def test_who_signs_and_scans(signed: Signed) -> None:
    trust(signed, ', "scanner"')
    state_scan(signed.folder, signed.keys["producer"])
    assert codes(signed) == ["OS780"]
    assert codes(signed, "separate = false") == []


def test_a_producer_is_no_scanner_and_a_stranger_nobody(signed: Signed) -> None:
    state_scan(signed.folder, signed.keys["producer"])
    assert codes(signed) == ["OS745"]
    state_scan(signed.folder, signed.keys["stranger"])
    assert codes(signed) == ["OS725"]


def test_a_scanner_of_other_models_cannot_pass_one_under_another_name(signed: Signed) -> None:
    trust(signed, text="")
    path = signed.folder.parent / "trust.toml"
    path.write_text(f'{path.read_text()}models = ["cats-*"]\n')
    state_scan(signed.folder, signed.keys["second"])
    assert codes(signed) == ["OS746"]
    state_scan(signed.folder, signed.keys["second"], name="cats-1")
    assert codes(signed) == ["OS746"]
    state_scan(signed.folder, signed.keys["second"], "suspect", name="cats-1")
    assert set(codes(signed)) == {"OS746", "OS778"}


def test_two_files_of_one_statement_are_judged_by_who_signed_each(signed: Signed) -> None:
    trust(signed, ', "scanner"')
    folder, record = signed.folder.parent, make_record()
    files = [
        state_scan(signed.folder, signed.keys[key], out=folder / f"{key}.scan", record=record, now=NOW)
        for key in ("second", "producer")
    ]
    assert codes(signed, scans=files) == [] == codes(signed, scans=files[::-1])
    earlier = NOW - timedelta(hours=9)
    bad = state_scan(signed.folder, signed.keys["producer"], "suspect", out=folder / "3.scan", scanned=earlier)
    # What the signer of the model says in its favour counts for nothing, and so takes nothing back.
    assert codes(signed, scans=[*files, bad]) == ["OS783"] == codes(signed, scans=[*files[::-1], bad])


def test_scanner_version_and_families(signed: Signed) -> None:
    state_scan(signed.folder, signed.keys["second"])
    assert codes(signed, 'min_version = "0.2"') == ["OS781"]
    assert codes(signed, 'min_version = "0.1.0"') == [] == codes(signed, 'min_version = "0"')
    assert codes(signed, 'families = ["all-to-all"]') == ["OS782"]
    assert codes(signed, 'families = ["style"]') == []  # this is no model of texts


def two(signed: Signed, first: Any, second: Any, *, same: bool = True, hours: int = 2, **how: Any) -> list[str]:
    """The codes with two statements: the second scanned later, by the same scanner or by another."""
    trust(signed, ', "scanner"')
    folder = signed.folder.parent
    one = state_scan(
        signed.folder, signed.keys["second"], first, out=folder / "1.scan", scanned=NOW - timedelta(hours=9)
    )
    key = signed.keys["second" if same else "producer"]
    at = NOW - timedelta(hours=9 - hours)
    other = state_scan(signed.folder, key, second, out=folder / "2.scan", scanned=at, **how)
    return codes(signed, "separate = false", scans=[one, other])


def test_statements_that_contradict(signed: Signed) -> None:
    assert two(signed, "none-found", "none-found", same=False) == []
    # A newer accusation outranks an older pass, and an older one stands until its own scanner takes it back.
    assert two(signed, "none-found", "suspect") == ["OS783"]
    assert two(signed, "none-found", "backdoor", same=False) == ["OS783"]
    assert two(signed, "suspect", "none-found", same=False) == ["OS783"]
    assert two(signed, "suspect", "none-found") == []
    # With fewer methods, or before the accusation, nothing is taken back.
    assert two(signed, "suspect", "none-found", results=[tried("scan.warp-trigger")]) == ["OS783"]
    assert two(signed, "suspect", "none-found", hours=-2) == ["OS783"]


def test_what_a_method_found_before_it_was_cut_short_is_taken_back_by_that_method_alone(signed: Signed) -> None:
    cut = tried("scan.neural-cleanse", status="partial", findings=[accusation()])
    folder, key = signed.folder.parent, signed.keys["second"]
    results = [cut, tried("scan.warp-trigger")]
    bad = state_scan(
        signed.folder, key, "suspect", results=results, scanned=NOW - timedelta(hours=9), out=folder / "1.scan"
    )
    for methods, expected in ((["scan.warp-trigger"], ["OS783"]), (["scan.warp-trigger", "scan.neural-cleanse"], [])):
        good = state_scan(signed.folder, key, results=[tried(one) for one in methods], out=folder / "2.scan")
        assert codes(signed, scans=[good, bad]) == expected


def test_an_accusation_past_its_end_is_no_contradiction(signed: Signed) -> None:
    folder = signed.folder.parent
    good = state_scan(signed.folder, signed.keys["second"], out=folder / "1.scan")
    bad = state_scan(signed.folder, signed.keys["second"], "suspect", out=folder / "2.scan", days=1)
    model = Model(digest(signed.folder).root.hex(), None, None, "model")
    for days, expected in ((0.5, ["OS783"]), (2, [])):
        now = NOW + timedelta(days=days)
        reasons, _ = scan_reasons([good, bad], model, policy(signed, "separate = false"), now=now)
        assert [one.code for one in reasons] == expected


def test_an_accusation_of_the_future_stands(signed: Signed) -> None:
    folder = signed.folder.parent
    good = state_scan(signed.folder, signed.keys["second"], out=folder / "1.scan")
    made = NOW + timedelta(hours=2)  # by the clock of its scanner
    bad = state_scan(signed.folder, signed.keys["second"], "suspect", out=folder / "2.scan", now=made)
    assert codes(signed, scans=[good, bad]) == ["OS783"]


def test_a_damaged_statement_beside_a_good_one_refuses(signed: Signed) -> None:
    good = state_scan(signed.folder, signed.keys["second"])
    bad = state_scan(signed.folder, signed.keys["second"], "suspect", out=signed.folder.parent / "2.scan")
    bad.write_bytes(bad.read_bytes()[:-9] + b"\n")
    assert codes(signed, scans=[good, bad]) == ["OS721"]


def test_a_revoked_scanner_counts_for_nothing(signed: Signed) -> None:
    state_scan(signed.folder, signed.keys["second"])
    key = signed.keys["second"].public_key.keyid
    store = STORE.replace("version = 1", "version = 2").format(more="")
    trust(signed).write_text(f'{store}[revoked]\nkeys = ["{key}"]\n')
    assert codes(signed) == ["OS740"]


def drop(*path: str) -> Callable[[dict[str, Any]], Any]:
    def change(statement: dict[str, Any]) -> None:
        inner = statement
        for step in path[:-1]:
            inner = inner[step]
        del inner[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (drop("predicate", "expires"), "OS730"),
        (drop("predicate", "scope"), "OS730"),
        (drop("predicate", "results"), "OS730"),
        (lambda s: s["predicate"].update(verdict="clean"), "OS730"),
        (lambda s: s["predicate"].update(results=[]), "OS730"),
        (lambda s: s["predicate"].update(name="other"), "OS730"),
        (lambda s: s["predicate"]["counterEvidence"].append(accusation().model_dump()), "OS730"),
        (lambda s: s["predicate"].update(expires="2099-01-01T00:00:00"), "OS730"),
        (lambda s: s["subject"].append(s["subject"][0]), "OS730"),
        (lambda s: s.update(subject=[]), "OS730"),
        (lambda s: s["subject"][0].update(digest={}), "OS731"),
        (lambda s: s["subject"][0].update(digest={ROOT: "zz"}), "OS731"),
        (lambda s: s.update(predicateType="ostiary:scan/v2"), "OS729"),
        (lambda s: s.update(predicateType=TEST_RESULT), "OS729"),
        (lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"), "OS730"),
    ],
)
def test_statements_that_are_none(signed: Signed, change: Callable[[dict[str, Any]], Any], code: str) -> None:
    where = state_scan(signed.folder, signed.keys["second"])
    assert codes(signed) == []
    restate(where, signed.keys["second"], change)
    assert codes(signed) == [code]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda s: s["predicate"]["scanner"].update(version="9" * 5000), "OS730"),
        (lambda s: s["predicate"].update(scanned="0001-01-01T00:00:00+14:00"), "OS777"),
        (lambda s: s["predicate"].update(created="9999-12-31T23:59:59-14:00"), "OS777"),
        (lambda s: s["predicate"].update(expires="0001-01-01T00:00:00+14:00"), "OS777"),
    ],
)
def test_numbers_at_the_end_of_their_range_are_refused(signed: Signed, change: Any, code: str) -> None:
    where = state_scan(signed.folder, signed.keys["second"])
    restate(where, signed.keys["second"], change)
    assert codes(signed, 'min_version = "0.1"') == [code]


def test_a_number_that_python_takes_for_infinity_is_no_json(signed: Signed) -> None:
    where = state_scan(signed.folder, signed.keys["second"])
    payload = opened(where.read_bytes(), "scan").payload.replace(b'"seed":0', b'"seed":0,"more":1e999')
    where.write_bytes(sign(payload, [signed.keys["second"]]).to_json())
    assert codes(signed) == ["OS721"]


def test_fields_of_later_versions_raise_no_trust_and_do_no_harm(signed: Signed) -> None:
    where = state_scan(signed.folder, signed.keys["second"], "suspect")
    restate(where, signed.keys["second"], lambda s: s["predicate"].update(approved=True))
    assert codes(signed) == ["OS778"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(min_value=0), bit=st.integers(0, 7))
def test_every_changed_bit_of_a_statement_refuses(signed: Signed, at: int, bit: int) -> None:
    where = Path(f"{signed.folder}.scan")
    if not where.exists():
        state_scan(signed.folder, signed.keys["second"])
    whole = where.read_bytes()
    data = bytearray(whole)
    data[at % len(data)] ^= 1 << bit
    changed = signed.folder.parent / "changed.scan"
    changed.write_bytes(data)
    model = Model(digest(signed.folder).root.hex(), None, None, "model")
    assert scan_reasons([changed], model, policy(signed, "separate = false"), now=datetime.now(UTC))[0]
    changed.write_bytes(whole)
    assert scan_reasons([changed], model, policy(signed, "separate = false"), now=datetime.now(UTC))[0] == []


def test_say_states_no_nonsense() -> None:
    good = Subject(name="model", digest={ROOT: "a" * 64})
    assert say([good], SCAN, {"a": 1})
    for subjects, said in (
        ([], {}),
        ([Subject(name="model", digest={ROOT: "A" * 64})], {}),
        ([good], {"a": float("nan")}),
    ):
        with pytest.raises(ConfigError):
            say(subjects, SCAN, said)
