"""Trusted loading: what is checked is what is used, every refusal has its code, and nothing is loaded in part."""

import contextlib
import hashlib
import json
import os
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save, save_file
from signed_case import Signed, flip, make_signed, write_model

import ostiary
from ostiary.core.codes import CODES
from ostiary.core.errors import ConfigError, FormatError, OstiaryError
from ostiary.models.load import save_model
from ostiary.provenance import buffers, loader
from ostiary.provenance.envelope import sign
from ostiary.provenance.loader import Loaded, load_verified
from ostiary.provenance.manifest import digest
from ostiary.provenance.policy import read_policy
from ostiary.provenance.refusal import Refused
from ostiary.provenance.sign import sign_model
from ostiary.provenance.statement import state

NOW = datetime.now(UTC)


@pytest.fixture
def signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Signed:
    monkeypatch.setenv("OSTIARY_STATE", str(tmp_path / "state"))
    return make_signed(tmp_path)


def policy(signed: Signed, text: str = "") -> Path:
    path = signed.folder.parent / "policy.toml"
    path.write_text(f'version = 1\ntrust = "producer.pub"\n{text}\n')
    return path


def resign(signed: Signed) -> None:
    signed.signature.write_bytes(sign_model(signed.folder, [signed.keys["producer"]]).to_json())


def codes(signed: Signed, text: str = "", **how: Any) -> list[str]:
    """The codes of the reasons against loading; empty when the model is loaded."""
    try:
        load_verified(signed.folder, policy(signed, text), **how)
    except Refused as error:
        refused = error
    else:
        return []
    assert refused.decision.decision == "refused" and refused.decision.policy
    assert [ground.code for ground in refused.decision.reasons] == [reason.code for reason in refused.reasons]
    assert all(reason.code in CODES for reason in refused.reasons)
    return [reason.code for reason in refused.reasons]


def test_a_signed_model_is_loaded_with_its_decision(signed: Signed) -> None:
    found = ostiary.load(signed.folder, policy=policy(signed))
    assert sorted(found.state) == ["a.weight", "b.weight"]
    assert torch.equal(found.state["a.weight"], load((signed.folder / "model-1.safetensors").read_bytes())["a.weight"])
    assert bytes(found.files["config.json"]) == b'{"model_type": "toy"}'
    decision = found.decision
    assert (decision.kind, decision.decision, decision.signers) == ("load", "accepted", ("producer",))
    assert decision.root == digest(signed.folder).root.hex() and decision.files == 4
    assert json.loads(decision.to_json())["policy"] == hashlib.sha256(policy(signed).read_bytes()).hexdigest()


def test_a_key_or_a_store_alone_is_a_policy(signed: Signed) -> None:
    assert ostiary.load(signed.folder, policy=signed.public()).decision.policy is None
    assert ostiary.load(signed.folder, policy=signed.store()).decision.trust is not None
    with pytest.raises(Refused, match="OS725"):
        ostiary.load(signed.folder, policy=signed.public("stranger"))


CHANGES: dict[str, tuple[Callable[[Signed], object], list[str]]] = {
    "no signature": (lambda it: it.signature.unlink(), ["OS701"]),
    "a flipped bit": (lambda it: flip(it.folder / "model-1.safetensors", -1), ["OS707"]),
    "an extra script": (lambda it: (it.folder / "modeling.py").write_text("pass"), ["OS709"]),
    "a missing shard": (lambda it: (it.folder / "model-2.safetensors").unlink(), ["OS708"]),
    "a link": (lambda it: (it.folder / "link").symlink_to("config.json"), ["OS702"]),
    "a stranger's signature": (lambda it: it.resign(lambda _: None, key="stranger"), ["OS725"]),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_is_not_as_signed_is_not_loaded(signed: Signed, case: str) -> None:
    change, wanted = CHANGES[case]
    assert codes(signed) == []
    change(signed)
    assert codes(signed) == wanted


def write(name: str, content: bytes | str) -> Callable[[Signed], object]:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda it: (it.folder / name).write_bytes(data)


def torch_save(name: str, value: Any) -> Callable[[Signed], object]:
    return lambda it: torch.save(value, it.folder / name)


TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m.content | trim }}{% if loop.first %}!{% endif %}{% endfor %}"
CONTENTS: dict[str, tuple[Callable[[Signed], object], Callable[[Signed], object], list[str]]] = {
    "a pickle named .safetensors": (
        write("x.safetensors", save({"x": torch.ones(2)})),
        write("x.safetensors", pickle.dumps({"x": 1})),
        ["OS110", "OS760"],
    ),
    "text named .safetensors": (
        write("x.safetensors", save({"x": torch.ones(2)})),
        write("x.safetensors", "weights"),
        ["OS110"],
    ),
    "a pickle named .json": (write("x.json", "{}"), write("x.json", pickle.dumps([1])), ["OS110", "OS760"]),
    "a checkpoint": (write("x.bin", b""), torch_save("x.bin", {"x": torch.ones(2)}), ["OS760"]),
    "a compressed pickle": (
        write("x.txt", "plain"),
        write("x.txt", b"\x1f\x8b\x08\x00" + b"0" * 30),
        ["OS110", "OS142", "OS760"],
    ),
    "code of its own": (
        write("config.json", '{"model_type": "toy", "note": "auto_map"}'),
        write("config.json", '{"model_type": "toy", "auto_map": {"AutoModel": "modeling.Toy"}}'),
        ["OS761"],
    ),
    "code of its own, deep": (
        write("tokenizer_config.json", '{"a": [{"b": 1}]}'),
        write("tokenizer_config.json", '{"a": [{"auto\\u005fmap": {}}]}'),
        ["OS761"],
    ),
    "an adapter without its base": (
        write("adapter.json", "{}"),
        write("adapter_config.json", '{"peft_type": "LORA"}'),
        ["OS765"],
    ),
    "a template that reaches out": (
        write("chat_template.jinja", TEMPLATE),
        write("chat_template.jinja", "{{ ''.__class__.__mro__ }}"),
        ["OS766"],
    ),
    "a template that reaches out by filters": (
        write("chat_template.jinja", "{{ messages | length }}"),
        write("chat_template.jinja", "{{ messages | attr('x') }}"),
        ["OS766"],
    ),
    "a template that reads files": (
        write("tokenizer_config.json", json.dumps({"chat_template": TEMPLATE})),
        write("tokenizer_config.json", json.dumps({"chat_template": [{"template": "{% include 'x' %}"}]})),
        ["OS766"],
    ),
    "a template that cannot be read": (
        write("chat_template.jinja", "{% generation %}{{ x }}{% endgeneration %}"),
        write("chat_template.jinja", "{% if %}"),
        ["OS766"],
    ),
    "a template under an escaped name": (
        write("tokenizer_config.json", '{"chat\\u005ftemplate": "{{ messages[0].content }}"}'),
        write("tokenizer_config.json", '{"chat\\u005ftemplate": "{{ messages.__class__ }}"}'),
        ["OS766"],
    ),
    "infinity in a complex number": (
        lambda it: save_file({"x": torch.ones(2, dtype=torch.complex64)}, it.folder / "x.safetensors"),
        lambda it: save_file({"x": torch.tensor([complex(0, torch.inf)])}, it.folder / "x.safetensors"),
        ["OS762"],
    ),
    "NaN": (
        lambda it: save_file({"x": torch.tensor([1.0, -2.0])}, it.folder / "x.safetensors"),
        lambda it: save_file({"x": torch.tensor([1.0, torch.nan])}, it.folder / "x.safetensors"),
        ["OS762"],
    ),
    "infinity in eight bits": (
        lambda it: save_file({"x": torch.ones(2).to(torch.float8_e5m2)}, it.folder / "x.safetensors"),
        lambda it: save_file({"x": torch.tensor([torch.inf]).to(torch.float8_e5m2)}, it.folder / "x.safetensors"),
        ["OS762"],
    ),
    "a tensor in two files": (
        lambda it: save_file({"c": torch.ones(2)}, it.folder / "x.safetensors"),
        lambda it: save_file({"a.weight": torch.ones(2)}, it.folder / "x.safetensors"),
        ["OS763"],
    ),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_what_a_trusted_key_signed_is_looked_at_all_the_same(signed: Signed, case: str) -> None:
    good, bad, wanted = CONTENTS[case]
    good(signed)
    resign(signed)
    assert codes(signed) == []
    bad(signed)
    signed.signature.write_bytes(sign(state(digest(signed.folder), "model"), [signed.keys["producer"]]).to_json())
    assert codes(signed) == wanted


def test_a_checkpoint_is_loaded_where_the_policy_allows_weights_only(signed: Signed) -> None:
    for file in signed.folder.glob("*.safetensors"):
        file.unlink()
    torch.save({"state_dict": {"x": torch.arange(3.0)}}, signed.folder / "x.pt")
    resign(signed)
    allowed = 'formats = ["weights-only"]'
    assert codes(signed) == ["OS760"] and codes(signed, allowed) == []
    found = load_verified(signed.folder, policy(signed, allowed))
    assert found.state["x"].tolist() == [0.0, 1.0, 2.0]


def test_a_checkpoint_that_torch_does_not_read_as_weights_is_refused(signed: Signed) -> None:
    """Arrays of numbers pass the inspection, and torch wants their classes named."""
    for file in signed.folder.glob("*.safetensors"):
        file.unlink()
    torch.save({"x": torch.ones(2)}, signed.folder / "x.pt")
    resign(signed)
    allowed = 'formats = ["weights-only"]'
    assert codes(signed, allowed) == []
    torch.save({"x": np.ones(2)}, signed.folder / "x.pt")
    resign(signed)
    assert codes(signed, allowed) == ["OS769"]


def test_a_checkpoint_that_calls_what_weights_do_not_need_is_refused(signed: Signed) -> None:
    class Harmless:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("x",)

    torch.save({"x": Harmless()}, signed.folder / "x.pt")
    resign(signed)
    assert "OS112" in codes(signed, 'formats = ["safetensors", "weights-only"]')


@pytest.mark.parametrize(
    ("good", "bad", "code"),
    [
        ("limits = {max_bytes = 10000}", "limits = {max_bytes = 100}", "OS764"),
        ("limits = {max_tensors = 2}", "limits = {max_tensors = 1}", "OS764"),
        ("limits = {max_other_bytes = 30}", "limits = {max_other_bytes = 20}", "OS764"),
    ],
)
def test_limits_of_the_policy(signed: Signed, good: str, bad: str, code: str) -> None:
    assert codes(signed, good) == []
    assert code in codes(signed, bad)


def test_what_the_policy_names_is_allowed(signed: Signed) -> None:
    (signed.folder / "config.json").write_text('{"auto_map": {}}')
    save_file({"x": torch.tensor([torch.inf])}, signed.folder / "x.safetensors")
    resign(signed)
    assert codes(signed) == ["OS761"]
    assert codes(signed, 'remote_code = ["other"]') == ["OS761"]
    assert codes(signed, 'remote_code = ["model"]') == ["OS762"]
    assert codes(signed, 'remote_code = ["model"]\nfinite = false') == []


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors["model-1.safetensors"].update({"a.weight": ["F16", [4, 3]]}),
        lambda tensors: tensors["model-1.safetensors"].update({"a.weight": ["F32", [3, 4]]}),
        lambda tensors: tensors["model-1.safetensors"].update({"new": ["F32", []]}),
        lambda tensors: tensors["model-1.safetensors"].clear(),
        lambda tensors: tensors.update({"gone.safetensors": {"x": ["F32", [1]]}}),
    ],
)
def test_tensors_must_be_those_of_the_signed_specification(signed: Signed, change: Callable[[Any], object]) -> None:
    signed.resign(lambda _: None)
    assert codes(signed) == []
    signed.resign(lambda statement: change(statement["predicate"]["tensors"]) and None)
    assert codes(signed) == ["OS763"]


def test_an_adapter_is_loaded_with_a_base_that_is_signed_too(signed: Signed, tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_model(base)
    (signed.folder / "adapter_config.json").write_text('{"base_model_name_or_path": "base"}')
    resign(signed)
    assert codes(signed, base=base) == ["OS701"]
    base.with_suffix(".sig").write_bytes(sign_model(base, [signed.keys["stranger"]]).to_json())
    assert codes(signed, base=base) == ["OS725"]
    base.with_suffix(".sig").write_bytes(sign_model(base, [signed.keys["producer"]]).to_json())
    found = load_verified(signed.folder, policy(signed), base=base)
    assert found.base is not None and found.base.decision.name == "base"
    signed.signature.unlink()
    assert codes(signed, base=base) == ["OS701"], "the base signed and the adapter not"


def exemption(signed: Signed, codes_: list[str], *, days: float = 1, reason: str = "needed for the audit") -> str:
    root = digest(signed.folder).root.hex()
    until = (NOW + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f'[[exemption]]\nroot = "{root}"\ncodes = {codes_}\nreason = "{reason}"\nexpires = {until}\n'


def test_an_exemption_says_what_why_and_until_when_and_stays_on_record(signed: Signed) -> None:
    signed.signature.unlink()
    assert codes(signed) == ["OS701"]
    assert codes(signed, exemption(signed, ["OS707"])) == ["OS701"]
    assert codes(signed, exemption(signed, ["OS701"], days=-1)) == ["OS701"]
    found = load_verified(signed.folder, policy(signed, exemption(signed, ["OS701"])))
    assert found.decision.decision == "exempted" and "needed for the audit" in (found.decision.exemption or "")
    assert [ground.code for ground in found.decision.reasons] == ["OS701"]
    text = exemption(signed, ["OS701"])
    flip(signed.folder / "config.json", 0)
    assert codes(signed, text) == ["OS701"], "another model has no exemption"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('colour = "red"', "colour"),
        ("formats = []", "formats"),
        ('formats = ["pickle"]', "formats"),
        ("limits = {max_bytes = 0}", "max_bytes"),
        (f'[[exemption]]\nroot = "{"0" * 64}"\ncodes = ["OS701"]\nexpires = 2099-01-01T00:00:00Z', "reason"),
        (f'[[exemption]]\nroot = "{"0" * 64}"\ncodes = ["OS701"]\nreason = "because of it"', "expires"),
        (f'[[exemption]]\nroot = "{"0" * 64}"\ncodes = []\nreason = "because of it"', "codes"),
        ("x = [", "neither a policy"),
    ],
)
def test_a_policy_that_is_ill_formed_is_an_error(signed: Signed, text: str, words: str) -> None:
    read_policy(policy(signed))
    with pytest.raises(ConfigError, match=words):
        read_policy(policy(signed, text))


def test_a_pinned_policy_and_the_store_it_pins_are_those_files(signed: Signed) -> None:
    path = policy(signed)
    pin = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_policy(path, pin=pin).digest == pin
    path.write_text(path.read_text() + "#\n")
    with pytest.raises(Refused, match="OS750"):
        read_policy(path, pin=pin)
    key = hashlib.sha256(signed.public().read_bytes()).hexdigest()
    assert codes(signed, f'trust_sha256 = "{key}"') == []
    with pytest.raises(Refused, match="OS750"):
        read_policy(policy(signed, f'trust_sha256 = "{"0" * 64}"'))


def test_a_change_after_loading_changes_nothing_that_was_loaded(signed: Signed) -> None:
    """Mapped files change with the disk; these are bytes of the process's own."""
    found = ostiary.load(signed.folder, policy=policy(signed))
    before = found.state["a.weight"].clone()
    with (signed.folder / "model-1.safetensors").open("r+b") as stream:
        stream.seek(-8, os.SEEK_END)
        stream.write(b"\xff" * 8)
    assert torch.equal(found.state["a.weight"], before)


def test_a_swap_between_check_and_use_is_not_what_is_used(signed: Signed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the bytes are read, the folder is replaced: what was read is checked, and what was checked is loaded."""
    wanted = load((signed.folder / "model-1.safetensors").read_bytes())["a.weight"]
    read_all = loader.read_all

    def then_swap(*args: Any, **kw: Any) -> buffers.Buffers:
        found = read_all(*args, **kw)
        save_file({"a.weight": torch.zeros(4, 3)}, signed.folder / "model-1.safetensors")
        return found

    monkeypatch.setattr(loader, "read_all", then_swap)
    found = load_verified(signed.folder, policy(signed))
    assert torch.equal(found.state["a.weight"], wanted)
    assert codes(signed) == ["OS707"]


def test_another_name_of_the_same_file_is_no_way_in(signed: Signed, tmp_path: Path) -> None:
    os.link(signed.folder / "model-1.safetensors", tmp_path / "other")
    found = load_verified(signed.folder, policy(signed))
    before = found.state["a.weight"].clone()
    with (tmp_path / "other").open("r+b") as stream:
        stream.write(b"\x00" * 8)
    assert torch.equal(found.state["a.weight"], before)
    assert codes(signed) == ["OS707"]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError()])
def test_an_error_midway_loads_nothing(signed: Signed, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken(*_: Any) -> int:
        raise error

    monkeypatch.setattr(os, "readv", broken)
    with pytest.raises(FormatError, match="cannot read"):
        load_verified(signed.folder, policy(signed))


def test_a_path_to_the_bytes_cannot_be_written_and_goes_away(signed: Signed) -> None:
    found = load_verified(signed.folder, policy(signed))
    with found.as_path() as path:
        assert path.name == "model" and (path / "tokenizer/tokenizer.json").read_text() == '{"version": "1.0"}'
        with pytest.raises(PermissionError), (path / "config.json").open("r+b", buffering=0) as stream:
            stream.write(b"x")
        assert (path / "config.json").read_bytes() == bytes(found.files["config.json"])
    assert not path.exists()


def test_without_sealed_memory_the_path_leads_to_read_only_copies(
    signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = load_verified(signed.folder, policy(signed))
    monkeypatch.delattr(os, "memfd_create")
    with found.as_path() as path:
        assert (path / "config.json").stat().st_mode & 0o777 == 0o400
        assert (path / "config.json").read_bytes() == bytes(found.files["config.json"])


def test_a_classifier_of_verified_bytes(signed: Signed, tmp_path: Path) -> None:
    from ostiary.models.classifier import TorchClassifier
    from ostiary.models.zoo import build

    path = tmp_path / "net.safetensors"
    model = TorchClassifier(build("small-cnn", 3, width=8), 3, (3, 8, 8), arch="small-cnn")
    save_model(model, path)
    (tmp_path / "net.safetensors.sig").write_bytes(sign_model(path, [signed.keys["producer"]]).to_json())
    found = ostiary.load(path, policy=signed.public())
    path.unlink()
    assert isinstance(found, Loaded) and found.classifier().digest == model.digest
    with pytest.raises(ConfigError, match="loads files as they are"):
        ostiary.load(path, "small-cnn", policy=signed.public())  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="need a policy"):
        ostiary.load(path, signature=path)  # type: ignore[call-overload]


def test_a_transformers_model_of_verified_bytes(signed: Signed, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=32, n_positions=16, n_embd=8, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(config)
    folder = tmp_path / "gpt"
    model.save_pretrained(folder)
    folder.with_suffix(".sig").write_bytes(sign_model(folder, [signed.keys["producer"]]).to_json())
    found = ostiary.load(folder, policy=signed.public()).transformers("AutoModelForCausalLM")
    tokens = torch.arange(8)[None]
    assert torch.equal(found(tokens).logits, model.eval()(tokens).logits)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300)), st.integers(0, 60), st.booleans())
def test_no_policy_makes_reading_fail_in_another_way(signed: Signed, noise: bytes | str, at: int, insert: bool) -> None:
    given_bytes = noise if isinstance(noise, bytes) else noise.encode(errors="replace")
    path = policy(signed)
    text = path.read_bytes()
    path.write_bytes(text[:at] + given_bytes + text[at:] if insert else given_bytes)
    with contextlib.suppress(OstiaryError):
        read_policy(path)
