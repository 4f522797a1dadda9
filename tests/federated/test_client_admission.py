"""What may reach a rule: every refusal beside a reply that passes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostiary.core.codes import explain
from ostiary.core.errors import ConfigError, ModelError
from ostiary.federated.admission import Admission, Admitted, Reply
from ostiary.federated.layout import Layout

MODEL = {
    "w": np.zeros((2, 2), np.float32),
    "b": np.zeros(2, np.float32),
    "mean": np.zeros(2, np.float32),
    "count": np.array(7, np.int64),
}
LAYOUT = Layout.of(MODEL, ("mean", "count"))


def reply(node: str = "a", value: float = 1.0, **more: Any) -> Reply:
    """A reply in which all trained values are `value`, before changes."""
    tensors = {**MODEL, "w": np.full((2, 2), value, np.float32), "b": np.full(2, value, np.float32)}
    tensors |= more.pop("tensors", {})
    for name in more.pop("without", ()):
        del tensors[name]
    return Reply(node, tensors, **{"round": 3, **more})


def admit(*replies: Reply, **how: Any) -> Admitted:
    return Admission(**how).admit(replies, MODEL, LAYOUT, 3)


HONEST = (reply("a"), reply("b", 1.1), reply("c", 0.9))
HOSTILE = {
    "nan": (reply(tensors={"b": np.array([np.nan, 1], np.float32)}), "OS501"),
    "infinite": (reply(tensors={"w": np.full((2, 2), np.inf, np.float32)}), "OS501"),
    "nan in statistics": (reply(tensors={"mean": np.full(2, np.nan, np.float32)}), "OS501"),
    "lacks": (reply(without=["b"]), "OS502"),
    "adds": (reply(tensors={"extra\n": np.zeros(1, np.float32)}), "OS502"),
    "shape": (reply(tensors={"b": np.zeros(3, np.float32)}), "OS503"),
    "scalar": (reply(tensors={"b": np.array(1.0, np.float32)}), "OS503"),
    "type": (reply(tensors={"b": np.zeros(2, np.float64)}), "OS504"),
    "objects": (reply(tensors={"b": np.array([None, None], object)}), "OS504"),
    "no array": (reply(tensors={"b": [0.0, 0.0]}), "OS504"),
    "long": (reply(value=30.0), "OS505"),
    "overflow": (reply(value=3e38), "OS505"),
    "late": (reply(round=2), "OS508"),
    "early": (reply(round=4), "OS508"),
}


@pytest.mark.parametrize(("bad", "code"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_reply_is_dropped_and_the_others_stay(bad: Reply, code: str) -> None:
    bad = Reply("bad", bad.tensors, bad.examples, bad.round)
    found = admit(*HONEST, bad)
    assert found.clients == ("a", "b", "c")
    assert {node: reason.code for node, reason in found.refused.items()} == {"bad": code}
    assert found.updates.shape == (3, 6) and np.isfinite(found.updates).all()
    assert explain(code).method == "admission, before any rule"
    assert "\n" not in found.refused["bad"].text


def test_honest_replies_pass() -> None:
    found = admit(*HONEST)
    assert found.refused == {} and found.notes == {}
    np.testing.assert_allclose(found.updates[1], 1.1, rtol=1e-6)
    np.testing.assert_allclose(found.shares, 1 / 3)


def test_two_replies_under_one_name_are_both_dropped() -> None:
    found = admit(*HONEST, reply("d"), reply("d", 0.5))
    assert found.clients == ("a", "b", "c") and found.refused["d"].code == "OS507"
    assert "d" in admit(*HONEST, reply("d")).clients


@pytest.mark.parametrize("claim", [0, -5, float("nan"), float("inf"), None, "12", [1.0], 10**400])
def test_odd_claims_are_refused_where_claims_count(claim: Any) -> None:
    assert admit(*HONEST, reply("d", examples=claim), weigh="claimed").refused["d"].code == "OS506"
    assert admit(*HONEST, reply("d", examples=claim)).clients[-1] == "d", "equal weights believe nobody"
    assert admit(*HONEST, reply("d", examples=1), weigh="claimed").refused == {}


def test_what_is_no_mapping_of_tensors_is_refused() -> None:
    assert admit(*HONEST, Reply("d", None, 1.0, HONEST[0].round)).refused["d"].code == "OS502"  # type: ignore[arg-type]


def test_a_claim_counts_for_so_much_and_no_more() -> None:
    replies = [reply(node, examples=10) for node in "abc"]
    found = admit(*replies, reply("d", examples=1e12), weigh="claimed")
    np.testing.assert_allclose(found.shares, [1 / 6, 1 / 6, 1 / 6, 1 / 2])
    assert {node: note.code for node, note in found.notes.items()} == {"d": "OS509"}
    assert admit(*replies, reply("d", examples=20), weigh="claimed").notes == {}
    np.testing.assert_allclose(admit(*replies, reply("d", examples=1e12)).shares, 0.25)


def test_the_cap_on_lengths_follows_what_is_seen() -> None:
    assert admit(*HONEST, reply("d", 9.0)).refused == {}
    assert admit(*HONEST, reply("d", 9.0), longest=5.0).refused["d"].code == "OS505"
    still = [reply(node, 0.0) for node in "abc"]
    assert admit(*still).clients == ("a", "b", "c"), "nobody moved, nobody is too long"


def test_reasons_do_not_grow_with_what_a_reply_adds() -> None:
    """As many tensors, or fields of a type, as a client likes."""
    many = {f"extra{i:04d}": np.zeros(1, np.float32) for i in range(2000)}
    wide = np.zeros(2, np.dtype([(f"field{i}", "f4") for i in range(2000)]))
    found = admit(*HONEST, reply("many", tensors=many), reply("wide", tensors={"b": wide}))
    assert found.refused["many"].text == "adds 'extra0000'; adds 'extra0001'; adds 'extra0002'; and 1997 more"
    assert found.refused["wide"].code == "OS504" and len(found.refused["wide"].text) < 120


def test_nobody_is_left() -> None:
    found = admit(reply("a", round=1))
    assert found.clients == () and found.updates.shape == (0, 6) and found.shares.shape == (0,)
    assert admit().clients == ()


def test_mutant_that_looks_at_finite_sums_alone_would_pass_what_cancels() -> None:
    """Two infinities of opposite sign in one tensor make NaN and must be seen as such."""
    bad = reply("d", tensors={"b": np.array([np.inf, -np.inf], np.float32)})
    assert admit(*HONEST, bad).refused["d"].code == "OS501"


def test_layouts_refuse_what_cannot_be_trained() -> None:
    with pytest.raises(ModelError, match="'count' holds no floating-point"):
        Layout.of(MODEL, ("mean",))
    with pytest.raises(ModelError, match="no tensor 'x'"):
        Layout.of(MODEL, ("x",))
    with pytest.raises(ModelError, match="'mean' is no trained tensor"):
        LAYOUT.head("w", "mean")
    head = LAYOUT.head("w", "b")
    assert (head.weight, head.bias, head.classes) == (slice(0, 4), slice(4, 6), 2)


def test_impossible_settings_are_refused() -> None:
    from pydantic import TypeAdapter, ValidationError

    for wrong in ({"longest": 1.0}, {"most": 0.5}, {"weigh": "believed"}):
        with pytest.raises((ValidationError, ConfigError)):
            TypeAdapter(Admission).validate_python(wrong)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(sorted(HOSTILE)), st.booleans()), max_size=8))
def test_whatever_comes_every_node_gets_one_answer_and_updates_are_finite(drawn: list[tuple[str, str, bool]]) -> None:
    replies = []
    for node, kind, honest in drawn:
        bad = HOSTILE[kind][0]
        replies.append(reply(node) if honest else Reply(node, bad.tensors, bad.examples, bad.round))
    found = admit(*replies)
    assert set(found.clients) | set(found.refused) == {one.node for one in replies}
    assert not set(found.clients) & set(found.refused) and len(set(found.clients)) == len(found.clients)
    assert np.isfinite(found.updates).all()
    assert not len(found.clients) or found.shares.sum() == pytest.approx(1)


@given(st.lists(st.floats(-1e3, 1e3), min_size=6, max_size=6))
@settings(max_examples=30, deadline=None)
def test_flat_and_back(values: list[float]) -> None:
    vector = np.array(values, np.float32).astype(np.float64)
    assert (LAYOUT.flat(LAYOUT.tensors(vector) | {name: MODEL[name] for name in LAYOUT.statistics}) == vector).all()
    assert {name: t.dtype for name, t in LAYOUT.tensors(vector).items()} == {"w": np.float32, "b": np.float32}
