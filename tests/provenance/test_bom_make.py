"""Bills of materials are made: what stands in them, of what, and that the same facts give the same bytes."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bom_case import (
    BESIDE,
    CARD,
    LIBRARIES,
    OLD_WEIGHTS,
    WEIGHTS,
    changed,
    evaluate,
    facts,
    made,
    record,
    repair,
    reread,
    scan,
    train,
)
from hypothesis import given
from hypothesis import strategies as st
from signed_case import write_model
from spdx_python_model import v3_0_1 as spdx3

from ostiary.core.errors import ConfigError, FormatError
from ostiary.provenance.attested import say
from ostiary.provenance.bom.card import read_card
from ostiary.provenance.bom.cyclonedx import licences, make_bom, to_bytes
from ostiary.provenance.bom.diff import diff
from ostiary.provenance.bom.environment import libraries
from ostiary.provenance.bom.evidence import bind, data_sets, portable
from ostiary.provenance.bom.facts import DataSet, describe, read_ancestor, read_attestation, read_data
from ostiary.provenance.bom.spdx import to_spdx
from ostiary.provenance.bom.view import lines_of
from ostiary.provenance.envelope import sign
from ostiary.provenance.keys import new_key, read_private
from ostiary.provenance.manifest import digest
from ostiary.provenance.refusal import Refused
from ostiary.provenance.samples.leaf import Sample, content_of_bytes
from ostiary.provenance.samples.manifest import About, write_manifest
from ostiary.provenance.statement import Subject


def refused(call: Any) -> list[str]:
    """The codes with which a call is refused; empty when it is not."""
    try:
        call()
    except Refused as error:
        return [one.code for one in error.reasons]
    return []


def test_the_same_facts_give_the_same_bytes(tmp_path: Path) -> None:
    one = to_bytes(make_bom(facts(tmp_path), "1.6"))
    again = to_bytes(make_bom(facts(tmp_path), "1.6"))
    assert one == again
    other = to_bytes(make_bom(facts(tmp_path, days=30), "1.6"))
    assert json.loads(one)["serialNumber"] != json.loads(other)["serialNumber"]


def test_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]); from bom_case import facts\n"
        "from ostiary.provenance.bom.cyclonedx import make_bom, to_bytes\n"
        "sys.stdout.buffer.write(to_bytes(make_bom(facts(Path(sys.argv[1])), '1.7')))"
    )
    one = to_bytes(make_bom(facts(tmp_path), "1.7"))
    command = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parents[1])]
    done = subprocess.run(
        command, capture_output=True, check=True, env={"PYTHONHASHSEED": "3", "PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout == one


def test_neither_paths_nor_names_of_people_get_in(tmp_path: Path) -> None:
    text = to_bytes(make_bom(facts(tmp_path), "1.7")).decode()
    for word in ("/home", "somebody", "/data/private", str(tmp_path)):
        assert word not in text
    assert "half.pt" in text and '"val, 50 samples"' in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("/home/somebody/x.npz", "x.npz"),
        ("~/x.npz", "x.npz"),
        ("C:\\Users\\somebody\\x.npz", "x.npz"),
        ("\\\\host\\share\\x.npz", "x.npz"),
        ("data/x.npz", "data/x.npz"),
        (["/home/somebody/x", 1], '["x", "1"]'),
        ({"a": {"b": "/home/somebody/x"}}, '{"a": "{\\"b\\": \\"x\\"}"}'),
        (0.5, "0.5"),
        (None, "null"),
    ],
)
def test_settings_lose_their_folders(value: Any, text: str) -> None:
    assert portable(value) == text


def test_what_stands_where(tmp_path: Path) -> None:
    bom = made(tmp_path, "1.7")
    model = bom["metadata"]["component"]
    files = {part["name"]: part["hashes"][0]["content"] for part in model["components"]}
    assert files == {file.path: file.digest.hex() for file in digest(tmp_path / "model").files}
    config = (tmp_path / "model" / "config.json").read_bytes()
    assert files["config.json"] == hashlib.sha256(config).hexdigest()
    props = {one["name"]: one["value"] for one in model["properties"]}
    assert props["ostiary:root"] == digest(tmp_path / "model").root.hex()
    assert props["ostiary:omsRoot"] == digest(tmp_path / "model").oms_root.hex()
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert [one["name"] for one in model["pedigree"]["ancestors"]] == ["base-model"]
    card = model["modelCard"]
    assert card["modelParameters"]["architectureFamily"] == "toy"
    assert card["modelParameters"]["datasets"] == [{"ref": "data:signs:train"}]
    assert {one["name"]: one["value"] for one in card["properties"]}["ostiary:parameters"] == "24"
    metrics = {
        one["type"]: one for one in card["quantitativeAnalysis"]["performanceMetrics"] if "evaluate" in one["slice"]
    }
    assert metrics["accuracy"]["value"] == "0.95"
    low, high = (float(metrics["accuracy"]["confidenceInterval"][f"{end}Bound"]) for end in ("lower", "upper"))
    assert low < 0.95 < high
    limits = card["considerations"]["technicalLimitations"]
    assert limits[0] == "night"
    assert any(text.startswith("scan.neural-cleanse does not see: triggers over the whole image") for text in limits)
    assert "scan.mm-bd: skipped, needs three classes" in limits
    data = {one["name"]: one for one in bom["components"] if one["type"] == "data"}
    inside = {one["name"]: one["value"] for one in data["signs:train"]["data"][0]["contents"]["properties"]}
    assert inside == {"ostiary:samples": "1000", "ostiary:root": "1" * 64, "ostiary:digest": "d" * 64}
    flow = bom["formulation"][0]["workflows"][0]
    assert flow["inputs"][1] == {"resource": {"ref": "data:signs:train"}}
    settings = {one["name"]: one["value"] for one in flow["inputs"][0]["parameters"]}
    assert settings["seed"] == "7" and settings["epochs"] == "3"
    evidence = bom["declarations"]["evidence"][0]
    assert (evidence["created"], evidence["expires"]) == ("2026-05-03T00:00:00Z", "2026-08-01T00:00:00Z")
    told = {one["name"]: one["contents"]["attachment"]["content"] for one in evidence["data"]}
    assert told["verdict"] == "none-found" and told["not finished"] == "scan.mm-bd: skipped, needs three classes"
    assert told["sha256 of the record"] == hashlib.sha256(scan().to_json().encode()).hexdigest()
    needs = {one["ref"]: one.get("dependsOn", []) for one in bom["dependencies"]}
    assert needs["model"] == ["base:base-model", "data:signs:train", "pkg:pypi/alpha@1.0", "pkg:pypi/gamma@3"]
    assert needs["pkg:pypi/alpha@1.0"] == ["pkg:pypi/beta@2.0"]
    link = model["externalReferences"][0]
    assert (link["type"], link["url"], link["hashes"][0]["content"]) == ("attestation", "model%20scan.sig", "2" * 64)
    assert {one["bom-ref"] for one in bom["citations"]} == {"citation:tool", "citation:records", "citation:card"}


def test_without_records_nothing_is_claimed(tmp_path: Path) -> None:
    bom = made(tmp_path, records=(), weights=None)
    assert "declarations" not in bom and "formulation" not in bom
    assert "approach" not in bom["metadata"]["component"]["modelCard"]["modelParameters"]


def test_a_repaired_model_has_the_figures_of_its_own(tmp_path: Path) -> None:
    first = train(digests={"model": OLD_WEIGHTS, "data": "d" * 64})
    records = bind([scan(), first, repair()], WEIGHTS)
    assert [one.kind for one in records] == ["train", "repair", "scan"]
    bom = made(tmp_path, records=records)
    metrics = bom["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {one["value"] for one in metrics if one["type"] == "accuracy"} == {"0.94"}
    flows = {one["name"]: one for one in bom["formulation"][0]["workflows"]}
    assert "outputs" not in flows["train"] and flows["repair"]["outputs"][0]["resource"] == {"ref": "model"}
    assert len(bom["declarations"]["evidence"]) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        scan(digests={"model": OLD_WEIGHTS}),
        evaluate(digests={"model": OLD_WEIGHTS}),
        train(digests={"model": OLD_WEIGHTS}),
        train(digests={}),
        repair(digests={"model": WEIGHTS, "repaired": OLD_WEIGHTS}),
    ],
    ids=lambda one: one.kind,
)
def test_records_of_another_model_are_refused(wrong: Any) -> None:
    assert refused(lambda: bind([train(), scan(), evaluate(), repair()], WEIGHTS)) == []
    assert refused(lambda: bind([train(), wrong], WEIGHTS)) == ["OS796"]


def test_a_scan_of_what_was_repaired_is_no_evidence_for_it() -> None:
    assert refused(lambda: bind([repair(), scan(digests={"model": OLD_WEIGHTS})], WEIGHTS)) == ["OS796"]


def test_other_records_say_nothing_of_a_model() -> None:
    with pytest.raises(ConfigError, match="is of a screen"):
        bind([record("screen", 1, ())], WEIGHTS)


def test_data_sets_of_records_and_manifests_meet_by_name() -> None:
    given_set = DataSet("signs:train", root="1" * 64, samples=1000)
    found = data_sets((train(), evaluate()), [given_set, DataSet("more", root="3" * 64)])
    assert [(one.name, one.role, one.root, one.digest) for one in found] == [
        ("more", "training", "3" * 64, None),
        ("signs:test", "testing", None, "f" * 64),
        ("signs:train", "training", "1" * 64, "d" * 64),
    ]
    assert refused(lambda: data_sets((train(),), [DataSet("signs:train", root="1" * 64, samples=999)])) == ["OS796"]
    other = train(id="0000000a", digests={"model": WEIGHTS, "data": "9" * 64})
    assert [one.name for one in data_sets((train(), other), [])] == ["signs:train", "signs:train (0000000a)"]
    with pytest.raises(ConfigError, match="given twice"):
        data_sets((), [given_set, given_set])


def test_a_card_about_an_unknown_set_and_doubled_bases_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'signs:test', which is not in the BOM"):
        make_bom(facts(tmp_path, records=(train(),), card=CARD), "1.6")
    base = BESIDE.ancestors[0]
    doubled = facts(tmp_path, beside=type(BESIDE)(ancestors=(base, base)))
    with pytest.raises(ConfigError, match="have one name"):
        make_bom(doubled, "1.6")


def test_reading_what_stands_beside(tmp_path: Path) -> None:
    root = "1" * 64
    assert read_data(f"a={root}") == DataSet("a", root=root)
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps({"root": root, "samples": 5, "name": "x"}))
    assert read_data(f"a={plain}") == DataSet("a", root=root, samples=5)
    private, _ = new_key(str(tmp_path / "owner"), "ed25519")
    subject = [Subject(name="x", digest={"ostiarySamplesV1": root})]
    envelope = sign(say(subject, "ostiary:data-set/v1", {"samples": 7}), [read_private(private)])
    signed = tmp_path / "signed.json"
    signed.write_bytes(envelope.to_json())
    assert read_data(f"a={signed}") == DataSet("a", root=root, samples=7)
    for text in ("a", "=b", "a=", f"a={tmp_path / 'none'}"):
        with pytest.raises((ConfigError, FormatError)):
            read_data(text)
    listed = tmp_path / "set.manifest"
    samples = [Sample(one, content_of_bytes(one.encode()), "a", "web") for one in "xyz"]
    summary = write_manifest(listed, About(name="set", kind="text"), samples)
    assert read_data(f"a={listed}") == DataSet("a", root=summary.root.hex(), samples=3)
    listed.write_bytes(listed.read_bytes()[:-1] + b"\0")
    assert refused(lambda: read_data(f"a={listed}")) == ["OS753"]
    plain.write_bytes(b"ostiary samples 1\n\0\0")
    assert refused(lambda: read_data(f"a={plain}")) == ["OS751"]
    plain.write_text('{"root": "zz"}')
    with pytest.raises(ConfigError, match="tells no root"):
        read_data(f"a={plain}")
    plain.write_text('{"root": "zz", "root": "zz"}')
    assert refused(lambda: read_data(f"a={plain}")) == ["OS722"]
    named = read_ancestor("base", f"llama@{root}")
    assert (named.name, named.root, named.manifest) == ("llama", root, None)
    write_model(tmp_path / "model")
    here = read_ancestor("adapter", str(tmp_path / "model"))
    assert here.root == digest(tmp_path / "model").root.hex() and here.manifest is not None
    with pytest.raises(FormatError):
        read_ancestor("base", str(tmp_path / "none"))


def test_an_attestation_must_be_about_this_model(tmp_path: Path) -> None:
    private, _ = new_key(str(tmp_path / "scanner"), "ed25519")
    subject = [Subject(name="m", digest={"ostiaryRootV1": "1" * 64})]
    file = tmp_path / "m.scan"
    file.write_bytes(sign(say(subject, "ostiary:scan/v1", {}), [read_private(private)]).to_json())
    found = read_attestation(file, "1" * 64)
    assert (found.kind, found.sha256) == ("ostiary:scan/v1", hashlib.sha256(file.read_bytes()).hexdigest())
    assert refused(lambda: read_attestation(file, "2" * 64)) == ["OS796"]
    file.write_bytes(b"of another form")
    assert read_attestation(file, "1" * 64).kind is None


def test_damaged_weights_make_no_bom(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    assert describe(tmp_path / "model").parameters == 24
    assert describe(tmp_path / "model" / "model-1.safetensors").parameters == 12
    config = tmp_path / "model" / "config.json"
    for name in ("\\ud800", "\\u001b[2J", "x" * 300):
        config.write_text(f'{{"model_type": "{name}", "architectures": [3]}}')
        found = describe(tmp_path / "model")
        assert found.family is None and found.architecture is None
    config.write_text('{"model_type": "toy", "model_type": "toy"}')
    assert refused(lambda: describe(tmp_path / "model")) == ["OS722"]
    config.unlink()
    (tmp_path / "model" / "empty.safetensors").write_bytes(b"")
    assert refused(lambda: describe(tmp_path / "model")) == ["OS145"]


def test_cards(tmp_path: Path) -> None:
    file = tmp_path / "card.toml"
    file.write_text('author = "A. Author"\n[system]\nname = "s"\n[data."a b"]\nlicence = "MIT"\n')
    found = read_card(file)
    assert (found.author, found.system.name, found.data["a b"].licence) == ("A. Author", "s", "MIT")
    for text in ('autor = "x"', 'author = ""', "author = 3", "author =", 'approach = "magic"', "[[link]]\nurl = 'a b'"):
        file.write_text(text)
        with pytest.raises(ConfigError):
            read_card(file)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("MIT", {"license": {"id": "MIT"}}),
        ("MIT OR Apache-2.0", {"expression": "MIT OR Apache-2.0"}),
        ("our own terms", {"license": {"name": "our own terms"}}),
    ],
)
def test_licences(text: str, value: dict[str, Any]) -> None:
    assert [one.to_value() for one in licences(text)] == [value]
    assert licences(None) == ()


def test_the_environment_is_listed_once_and_closed() -> None:
    found = libraries()
    names = [one.name for one in found]
    assert names == sorted(set(names)) and {"torch", "numpy", "pydantic"} <= set(names)
    known = {one.name: one for one in found}
    assert all(need in known for one in found for need in one.needs)
    assert "pydantic-core" in known["pydantic"].needs and "pytest" not in known["numpy"].needs


@pytest.mark.parametrize(
    ("change", "section", "kind"),
    [
        (lambda bom: bom["metadata"]["component"].update(licenses=[{"license": {"id": "MIT"}}]), "licences", "removed"),
        (
            lambda bom: bom["metadata"]["component"]["components"][0]["hashes"][0].update(content="0" * 64),
            "hashes",
            "altered",
        ),
        (lambda bom: bom["metadata"]["component"]["components"].pop(), "files", "removed"),
        (lambda bom: bom["metadata"]["component"].update(version="4"), "model", "altered"),
        (lambda bom: bom["metadata"]["component"].pop("pedigree"), "ancestors", "removed"),
        (lambda bom: bom["components"][0].update({"bom-ref": "data:else"}), "data sets", "added"),
        (lambda bom: bom["components"][0]["properties"][0].update(value="2"), "data sets", "altered"),
        (lambda bom: bom["components"].pop(), "libraries", "removed"),
        (lambda bom: bom.pop("components"), "data sets", "removed"),
        (lambda bom: bom["declarations"]["claims"][0].update(predicate="backdoor"), "verdicts", "altered"),
        (lambda bom: bom["formulation"][0]["workflows"][0].update(uid="2"), "training", "altered"),
        (lambda bom: bom["dependencies"].pop(), "dependencies", "removed"),
        (
            lambda bom: bom["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"][
                0
            ].update(value="0.5"),
            "metrics",
            "altered",
        ),
        (lambda bom: bom["metadata"].pop("authors"), "other", "removed"),
        (lambda bom: bom.update(annotations=[]), "other", "added"),
    ],
)
def test_each_difference_is_named(change: Any, section: str, kind: str, tmp_path: Path) -> None:
    old = made(tmp_path)
    new = changed(old, change)
    new["serialNumber"], new["metadata"]["timestamp"] = (
        f"urn:uuid:{'0' * 8}-0000-0000-0000-{'0' * 12}",
        "2027-01-01T00:00:00Z",
    )
    assert diff(reread(old), reread(old)) == ()
    found = diff(reread(old), reread(new))
    assert (section, kind) in {(one.section, one.kind) for one in found}
    back = {"added": "removed", "removed": "added", "altered": "altered"}
    assert {(one.section, back[one.kind], one.where) for one in diff(reread(new), reread(old))} == {
        (one.section, one.kind, one.where) for one in found
    }


def test_order_is_no_difference(tmp_path: Path) -> None:
    old = made(tmp_path)

    def turn(bom: dict[str, Any]) -> None:
        bom["components"].reverse()
        bom["dependencies"].reverse()
        bom["metadata"]["component"]["components"].reverse()

    assert diff(reread(old), reread(changed(old, turn))) == ()


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=5), st.lists(st.sampled_from(["a", "b", "c"]), max_size=5))
def test_lists_of_names_differ_as_bags_do(one: list[str], other: list[str]) -> None:
    def bom(names: list[str]) -> Any:
        return reread(
            {
                "bomFormat": "CycloneDX",
                "specVersion": "1.6",
                "components": [{"type": "file", "name": name, "version": str(i)} for i, name in enumerate(names)],
            }
        )

    found = diff(bom(one), bom(other))
    added = sum(change.kind == "added" for change in found) - sum(change.kind == "removed" for change in found)
    if one and other:
        assert added == len(other) - len(one)
    assert bool(found) == (one != other)


def test_view_shows_all_parts(tmp_path: Path) -> None:
    text = "\n".join(lines_of(reread(made(tmp_path, "1.7", records=(train(), scan("backdoor"), evaluate())))))
    for word in (
        "A. Author",
        "Example Institute",
        "base-model",
        "signs:train  1000 samples",
        "accuracy: 0.95 [",
        "backdoor: confirmed",
        "against: scan 00000003",
        "alpha 1.0  MIT",
        "OS798",
        "EXPIRED",
        "does not see",
    ):
        assert word in text, word
    bare = "\n".join(lines_of(reread({"bomFormat": "CycloneDX", "specVersion": "1.6"})))
    assert "level below minimum" in bare
    alone = {"type": "machine-learning-model", "name": "m"}
    silent = {"bomFormat": "CycloneDX", "specVersion": "1.6", "metadata": {"component": alone}}
    assert "claims no examination for backdoors" in "\n".join(lines_of(reread(silent)))


def read_spdx(data: bytes) -> Any:
    found = spdx3.SHACLObjectSet()
    spdx3.JSONLDDeserializer().deserialize_data(json.loads(data), found)
    return found


def test_spdx_is_read_by_the_official_bindings(tmp_path: Path) -> None:
    data = to_spdx(make_bom(facts(tmp_path, records=(train(), scan(), evaluate())), "1.6"))
    assert data == to_spdx(make_bom(facts(tmp_path), "1.6"))
    found = read_spdx(data)
    assert found.missing_ids == set()
    names = {one.relationshipType.rpartition("/")[2]: one for one in found.foreach_type(spdx3.Relationship)}
    assert [one.name for one in names["trainedOn"].to] == ["signs:train"]
    assert [one.name for one in names["testedOn"].to] == ["signs:test"]
    assert [one.name for one in names["descendantOf"].to] == ["base-model"]
    assert {one.name for one in names["hasEvidence"].to} == {"evidence:00000003", "model%20scan.sig"}
    assert {one.name for one in names["dependsOn"].to} == {LIBRARIES[0].name, LIBRARIES[2].name}
    (model,) = [one for one in found.foreach_type(spdx3.ai_AIPackage) if one.name == "model"]
    assert names["trainedOn"].from_ is model or names["trainedOn"].from_ == model
    assert "neural-cleanse does not see" in model.ai_limitation
    files = {one.name: one.verifiedUsing[0].hashValue for one in names["contains"].to}
    assert files == {file.path: file.digest.hex() for file in digest(tmp_path / "model").files}
    sizes = {one.name: one.dataset_datasetSize for one in found.foreach_type(spdx3.dataset_DatasetPackage)}
    assert sizes == {"signs:train": 1000, "signs:test": 100}
    wrong = json.loads(data)
    wrong["@graph"][-1]["relationshipType"] = "bakedWith"
    with pytest.raises(ValueError, match="bakedWith"):
        read_spdx(json.dumps(wrong).encode())
