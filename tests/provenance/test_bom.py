"""Bills of materials are checked: schema, references, hashes, time, completeness; each refusal beside what passes."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bom_case import changed, made, record, reread, result, scan, train
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from signed_case import flip

from ostiary.core.bom_refusals import BOM_REFUSALS
from ostiary.core.codes import CODES
from ostiary.core.errors import OstiaryError
from ostiary.provenance.bom.check import bom_roots, check, completeness, lacking, match_model, read_bom
from ostiary.provenance.bom.document import MAX_DEPTH
from ostiary.provenance.bom.references import ANYWHERE, INSIDE, PLACES
from ostiary.provenance.manifest import digest
from ostiary.provenance.refusal import Refused

NOW = datetime(2026, 6, 2, tzinfo=UTC)
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return made(tmp_path_factory.mktemp("whole"), "1.7")


def codes(value: Any, now: datetime = NOW) -> list[str]:
    """The codes against a BOM; empty when it holds."""
    try:
        return [one.code for one in check(reread(value), now=now)]
    except Refused as error:
        return [one.code for one in error.reasons]


def model(bom: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = bom["metadata"]["component"]
    return found


def declared(bom: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = bom["declarations"]
    return found


@pytest.mark.parametrize("version", ["1.6", "1.7"])
def test_what_is_made_holds(version: Any, tmp_path: Path) -> None:
    assert codes(made(tmp_path, version)) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda bom: bom.update(bomFormat="SPDX"), "OS788"),
        (lambda bom: bom.update(specVersion="1.5"), "OS788"),
        (lambda bom: bom.update(specVersion=1.6), "OS788"),
        (lambda bom: model(bom)["modelCard"].update(modelParameterz={}), "OS789"),
        (lambda bom: model(bom).pop("name"), "OS789"),
        (lambda bom: bom["metadata"].update(timestamp="yesterday"), "OS789"),
        (lambda bom: bom["metadata"].update(timestamp="2026-06-01T00:00:00"), "OS789"),
        (lambda bom: bom["components"].append(bom["components"][0]), "OS789"),
        (lambda bom: bom.update(serialNumber="urn:uuid:1"), "OS789"),
        (lambda bom: bom["components"][0].update({"bom-ref": "model"}), "OS790"),
        (lambda bom: model(bom)["modelCard"]["modelParameters"]["datasets"][0].update(ref="data:none"), "OS791"),
        (lambda bom: model(bom)["modelCard"]["modelParameters"]["datasets"][0].update(ref="tool:ostiary"), "OS791"),
        (lambda bom: bom["dependencies"][0]["dependsOn"].append("pkg:pypi/none@1"), "OS791"),
        (lambda bom: bom["dependencies"].append({"ref": "none"}), "OS791"),
        (lambda bom: bom["formulation"][0]["workflows"][0]["inputs"][1]["resource"].update(ref="none"), "OS791"),
        (lambda bom: bom["formulation"][0]["workflows"][0]["outputs"][0]["resource"].update(ref="none"), "OS791"),
        (lambda bom: declared(bom)["claims"][0].update(target="none"), "OS791"),
        (lambda bom: declared(bom)["claims"][0].update(evidence=["none"]), "OS791"),
        (lambda bom: declared(bom)["claims"][0].update(evidence=["model"]), "OS791"),
        (lambda bom: declared(bom)["attestations"][0].update(assessor="model"), "OS791"),
        (lambda bom: declared(bom)["attestations"][0]["map"][0].update(claims=["assessor"]), "OS791"),
        (lambda bom: bom["citations"][0].update(attributedTo="nobody"), "OS791"),
        (lambda bom: bom["citations"][0].update(pointers=["/metadata/component/nothing"]), "OS791"),
        (lambda bom: bom["citations"][0].update(pointers=["metadata"]), "OS791"),
        (lambda bom: bom.update(compositions=[{"aggregate": "complete", "assemblies": ["none"]}]), "OS791"),
        (
            lambda bom: bom["components"][0].update(evidence={"identity": [{"field": "name", "tools": ["none"]}]}),
            "OS791",
        ),
        (lambda bom: bom["dependencies"][0]["dependsOn"].append("model"), "OS792"),
        (lambda bom: bom["dependencies"].append({"ref": "data:signs:train", "dependsOn": ["model"]}), "OS792"),
        (lambda bom: model(bom)["pedigree"]["ancestors"][0].update(properties=model(bom)["properties"]), "OS792"),
        (lambda bom: declared(bom)["evidence"][0].update(expires="2026-06-01T12:00:00Z"), "OS794"),
        (lambda bom: declared(bom)["evidence"][0].update(created="2026-07-01T00:00:00Z"), "OS794"),
        (
            lambda bom: declared(bom)["evidence"][0].update(
                created="2026-06-02T00:00:00Z", expires="2026-06-02T00:00:00Z"
            ),
            "OS794",
        ),
        (lambda bom: model(bom)["components"][0]["hashes"][0].update(content="0" * 32), "OS797"),
        (lambda bom: model(bom)["components"][0]["hashes"][0].update(content="0" * 64), "OS797"),
        (lambda bom: model(bom)["components"][0].update(hashes=[{"alg": "MD5", "content": "0" * 32}]), "OS797"),
        (lambda bom: model(bom)["components"][0].update(name="../config.json"), "OS797"),
        (lambda bom: model(bom)["components"][1].update(name="config.json"), "OS797"),
        (lambda bom: model(bom)["components"].pop(), "OS797"),
        (lambda bom: model(bom)["properties"][0].update(value="0" * 64), "OS797"),
        (lambda bom: declared(bom)["claims"][0].update(counterEvidence=["evidence:00000003"]), "OS798"),
        (lambda bom: declared(bom)["attestations"][0]["map"][0].update(counterClaims=["claim:backdoors"]), "OS798"),
    ],
)
def test_each_fault_has_its_code(change: Change, code: str, whole: dict[str, Any]) -> None:
    assert codes(whole) == []
    assert code in codes(changed(whole, change))


def test_every_code_is_explained_and_has_a_refusal() -> None:
    text = Path(__file__).read_text(encoding="utf-8") + (Path(__file__).parent / "test_bom_make.py").read_text(
        encoding="utf-8"
    )
    for code in BOM_REFUSALS:
        assert CODES[code.id] is code
        assert f'"{code.id}"' in text, code.id


def test_packages_may_need_each_other_and_other_boms_may_be_named(whole: dict[str, Any]) -> None:
    def change(bom: dict[str, Any]) -> None:
        needs = {one["ref"]: one for one in bom["dependencies"]}
        needs["pkg:pypi/beta@2.0"]["dependsOn"] = ["pkg:pypi/alpha@1.0"]
        other = "urn:cdx:00000000-0000-4000-8000-000000000000/1#part"
        own = f"urn:cdx:{bom['serialNumber'].removeprefix('urn:uuid:')}/1#model"
        bom["compositions"] = [{"aggregate": "complete", "assemblies": [other, own]}]

    assert codes(changed(whole, change)) == []

    def dangling(bom: dict[str, Any]) -> None:
        own = f"urn:cdx:{bom['serialNumber'].removeprefix('urn:uuid:')}/1#none"
        bom["compositions"] = [{"aggregate": "complete", "assemblies": [own]}]

    assert codes(changed(whole, dangling)) == ["OS791"]


def test_tasks_may_not_need_each_other(whole: dict[str, Any]) -> None:
    def change(bom: dict[str, Any]) -> None:
        flow = bom["formulation"][0]["workflows"][0]
        flow["tasks"] = [{"bom-ref": name, "uid": name, "taskTypes": ["build"]} for name in ("one", "two")]
        flow["taskDependencies"] = [{"ref": "one", "dependsOn": ["two"]}, {"ref": "two", "dependsOn": ["one"]}]

    assert codes(changed(whole, change)) == ["OS792", "OS792"]
    assert codes(changed(changed(whole, change), lambda bom: _flow(bom)["taskDependencies"].pop())) == []


def _flow(bom: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = bom["formulation"][0]["workflows"][0]
    return found


def test_every_place_of_a_reference_in_the_schema_is_looked_at() -> None:
    folder = Path(read_bom.__code__.co_filename).parent / "schemas"
    schema = json.loads((folder / "bom-1.7.SNAPSHOT.schema.json").read_bytes())
    found: set[tuple[str, ...]] = set()

    def walk(part: Any, path: tuple[str, ...]) -> None:
        if not isinstance(part, dict):
            return
        target = part.get("$ref")
        if target == "#/definitions/refLinkType" or (target == "#/definitions/refType" and path[-1:] != ("bom-ref",)):
            found.add(path)
        for key, inner in part.get("properties", {}).items():
            walk(inner, (*path, key))
        walk(part.get("items"), path)
        for one in (*part.get("anyOf", []), *part.get("oneOf", [])):
            walk(one, path)

    walk(schema, ())
    # Where each definition with references in it is used, as far as the way matters.
    used = {
        "annotations": "annotations",
        "citation": "citations",
        "compositions": "compositions",
        "cryptoRefArray": "cryptoRefArray",
    }
    used |= {
        "standard": "definitions/standards",
        "componentIdentityEvidence": "identity",
        "cipherSuite": "cipherSuites",
    }
    used |= {"patentFamily": "patents"}
    for name, part in schema["definitions"].items():
        if name != "refLinkType":
            walk(part, tuple(used.get(name, name).split("/")))
    places = {tuple(part for part in way if part != "*") for way in PLACES}
    missed = {way for way in found if way[-1] not in ANYWHERE and way[-2:] not in INSIDE and way not in places}
    assert len(found) > 30 and missed == {
        (f"ikeV2{name}", "algorithm") for name in ("Auth", "Enc", "Integ", "Ke", "Prf")
    }


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "OS721"),
        (b"[]", "OS788"),
        (b"{", "OS721"),
        (b'{"bomFormat": "CycloneDX", "bomFormat": "CycloneDX"}', "OS722"),
        (b'{"bomFormat": "CycloneDX", "specVersion": "1.6", "version": NaN}', "OS721"),
        (b'{"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1e999}', "OS721"),
        (b'{"bomFormat": "CycloneDX", "specVersion": "1.6", "version": ' + b"9" * 5000 + b"}", "OS721"),
        (b'{"bomFormat": "CycloneDX", "specVersion": "1.6", "\\ud800": 1}', "OS721"),
        (b'{"bomFormat": "CycloneDX", "specVersion": "1.6", "x": ' + b"[" * 100 + b"]" * 100 + b"}", "OS720"),
        (b'{"bomFormat": "CycloneDX", "specVersion": "1.6", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "OS720"),
        (b"\xff\xfe{}", "OS721"),
    ],
)
def test_hostile_bytes_are_refused(data: bytes, code: str) -> None:
    with pytest.raises(Refused) as caught:
        read_bom(data)
    assert [one.code for one in caught.value.reasons] == [code]


def test_what_is_deep_but_allowed_is_walked(whole: dict[str, Any]) -> None:
    def nest(levels: int) -> Change:
        def change(bom: dict[str, Any]) -> None:
            part = {"type": "file", "name": "leaf", "bom-ref": "leaf 0"}
            for number in range(1, levels):
                part = {"type": "file", "name": "holder", "bom-ref": f"leaf {number}", "components": [part]}
            bom["components"].append(part)

        return change

    assert codes(changed(whole, nest(MAX_DEPTH // 2 - 3))) == []
    assert codes(changed(whole, nest(MAX_DEPTH // 2 + 3))) == ["OS720"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.integers(0, 10**6),
    value=st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.lists(st.text())),
)
def test_any_one_change_is_refused_or_read(place: int, value: Any, whole: dict[str, Any]) -> None:
    """No change anywhere makes anything but a BOM that is checked, or a refusal."""

    def change(bom: dict[str, Any]) -> None:
        spots: list[tuple[Any, Any]] = []

        def walk(part: Any) -> None:
            for key in list(part) if isinstance(part, dict) else range(len(part)):
                spots.append((part, key))
                if isinstance(part[key], dict | list):
                    walk(part[key])

        walk(bom)
        holder, key = spots[place % len(spots)]
        holder[key] = value

    bom = changed(whole, change)
    try:
        found = reread(bom)
    except OstiaryError:
        return
    check(found, now=NOW)
    completeness(found, now=NOW)
    bom_roots(found)


def test_it_is_about_these_bytes(tmp_path: Path) -> None:
    bom = reread(made(tmp_path))
    folder = tmp_path / "model"
    assert match_model(bom, digest(folder)) == []
    assert bom_roots(bom) == (digest(folder).root.hex(),)
    flip(folder / "model-1.safetensors", 100)
    (folder / "new.py").write_text("pass")
    (folder / "config.json").rename(folder / "c.json")
    found = match_model(bom, digest(folder))
    assert {one.code for one in found} == {"OS793"}
    told = " ".join(one.message for one in found)
    for text in (
        "'new.py' is not in the BOM",
        "'config.json' is not in the model",
        "'model-1.safetensors' has another",
    ):
        assert text in told


def test_a_bom_of_others_is_compared_by_its_hashes(tmp_path: Path) -> None:
    def foreign(bom: dict[str, Any]) -> None:
        model(bom).pop("properties")

    value = changed(made(tmp_path), foreign)
    bom = reread(value)
    assert check(bom, now=NOW) == [] and bom_roots(bom) == ()
    assert match_model(bom, digest(tmp_path / "model")) == []
    flip(tmp_path / "model" / "model-1.safetensors", 100)
    assert [one.code for one in match_model(bom, digest(tmp_path / "model"))] == ["OS793"]
    bare = reread(changed(value, lambda bom: model(bom).pop("components")))
    assert [one.code for one in match_model(bare, digest(tmp_path / "model"))] == ["OS793"]
    none = reread(changed(value, lambda bom: model(bom).update(type="application")))
    assert [one.code for one in match_model(none, digest(tmp_path / "model"))] == ["OS793"]


def test_names_swapped_in_a_bom_are_seen(tmp_path: Path) -> None:
    def swap(bom: dict[str, Any]) -> None:
        one, two = model(bom)["components"][1:3]
        one["hashes"], two["hashes"] = two["hashes"], one["hashes"]

    assert codes(changed(made(tmp_path), swap)) == ["OS797"]


def test_completeness_says_what_is_there_and_what_is_not(whole: dict[str, Any], tmp_path: Path) -> None:
    bom = reread(whole)
    found = completeness(bom, signed=True, now=NOW)
    assert found.level == "full", found.absent("full")
    assert [one.name for one in completeness(bom, now=NOW).absent("full")] == ["signature of the author"]
    for one in found.elements:
        assert one.where == "beside the file" or (one.where or "").startswith("/")
    assert len({one.cluster for one in found.elements}) == 7
    assert lacking(bom, "minimum", now=NOW) == []
    bare = {"bomFormat": "CycloneDX", "specVersion": "1.6"}
    none = completeness(reread(bare))
    assert none.level is None and [one.name for one in none.elements if one.where] == ["data format"]
    assert {one.code for one in lacking(reread(bare), "minimum")} == {"OS795"}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda bom: bom["metadata"].pop("authors"), "author of the BOM"),
        (lambda bom: bom["metadata"].pop("tools"), "name of the tool"),
        (lambda bom: bom["metadata"].pop("lifecycles"), "generation context"),
        (lambda bom: bom["metadata"].pop("timestamp"), "timestamp"),
        (lambda bom: bom.pop("version"), "version of the BOM"),
        (lambda bom: model(bom).pop("supplier"), "producer"),
        (lambda bom: model(bom).pop("licenses"), "licence"),
        (lambda bom: model(bom).pop("components"), "hash value"),
        (lambda bom: model(bom).pop("properties"), "identifier"),
        (lambda bom: bom["components"].append({"type": "data", "name": "other"}), "identifier"),
        (lambda bom: declared(bom).pop("claims"), "examination for backdoors"),
        (lambda bom: declared(bom)["evidence"][0].pop("expires"), "examination for backdoors"),
        (lambda bom: declared(bom)["evidence"][0].update(expires="2026-06-01T00:00:00Z"), "examination for backdoors"),
        (lambda bom: declared(bom)["claims"][0].update(target="tool:ostiary"), "examination for backdoors"),
    ],
)
def test_the_level_minimum_asks_for_each(change: Change, name: str, whole: dict[str, Any]) -> None:
    assert completeness(reread(whole), now=NOW).level == "minimum"
    found = completeness(reread(changed(whole, change)), now=NOW)
    assert found.level is None and name in [one.name for one in found.absent("minimum")]


@pytest.mark.parametrize("verdict", ["backdoor", "suspect"])
def test_an_adverse_scan_refuses_the_bom_whatever_else_is_claimed(verdict: str, tmp_path: Path) -> None:
    records = (train(), scan(), scan(verdict, 5))
    value = made(tmp_path, records=records)
    assert declared(value)["claims"][0]["predicate"].startswith(f"{verdict}:")
    assert declared(value)["claims"][0]["counterEvidence"] == ["evidence:00000005"]
    assert declared(value)["claims"][0]["evidence"] == ["evidence:00000003"]
    assert codes(value) == ["OS798"]


def test_an_incomplete_scan_claims_no_pass(tmp_path: Path) -> None:
    left = result("scan.mm-bd", None, status="failed", reason="it crashed")
    unfinished = record("scan", 6, (left,), verdict="incomplete", interrupted=True)
    value = made(tmp_path, records=(train(), scan(), unfinished))
    assert declared(value)["claims"][0]["predicate"].startswith("incomplete:")
    assert "none-found" not in declared(value)["attestations"][0]["summary"]
