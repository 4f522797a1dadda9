"""Finding and building methods by name, ours and others'."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from types import ModuleType
from typing import Any, ClassVar

import pytest

from ostiary.core import catalog
from ostiary.core.card import Card, Needs
from ostiary.core.catalog import PACKAGES, make, method_class, methods, resolve
from ostiary.core.codes import CODES, explain
from ostiary.core.errors import ConfigError, OstiaryError
from ostiary.core.plan import BLACK_BOX, PRESETS, is_black_box, parse_sets, plan


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Installs entry points of a made-up distribution; its module is `toy_plugin`."""

    @dataclass(frozen=True, kw_only=True)
    class Toy:
        card: ClassVar[Card] = Card(id="text.scan.toy", summary="s", paper="p", needs=Needs(), cost="c")
        steps: int = 4

    module = ModuleType("toy_plugin")
    module.Toy = Toy  # type: ignore[attr-defined]  # a made-up module
    monkeypatch.setitem(sys.modules, "toy_plugin", module)

    def install(*names: str) -> None:
        points = EntryPoints(EntryPoint(name, "toy_plugin:Toy", "ostiary.methods") for name in names)
        monkeypatch.setattr(catalog, "entry_points", lambda group: points.select(group=group))
        methods.cache_clear()

    methods.cache_clear()
    yield install
    methods.cache_clear()


def refused(call: Any, *args: Any, **named: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*args, **named)
    return f"{caught.value} / {caught.value.hint}"


def test_short_and_full_names() -> None:
    assert resolve("scan", "neural-cleanse") == resolve("scan", "scan.neural-cleanse") == "scan.neural-cleanse"
    assert method_class("scan", "neural-cleanse").__name__ == "NeuralCleanse"
    verbs = {"scan", "screen", "repair", "guard", "harden", "attack", "perturb", "benign", "aggregate", "client-attack"}
    assert set(PACKAGES) == verbs


def test_nothing_is_imported_to_list() -> None:
    listed = methods("screen")
    assert all(":" in value for value in listed.values()) and "screen.spectral-signatures" in listed


def test_an_unknown_method_gets_a_suggestion() -> None:
    told = refused(resolve, "scan", "neural-clense")
    assert "no scan method is called 'neural-clense'" in told and "did you mean 'neural-cleanse'?" in told
    assert "known: " in refused(resolve, "screen", "zzz") and "spectral-signatures" in refused(resolve, "screen", "zzz")


def test_parameters_are_checked_against_the_fields() -> None:
    assert make("scan", "neural-cleanse", {"steps": "12"}).steps == 12
    assert make("scan", "neural-cleanse").steps == 500
    told = refused(make, "scan", "neural-cleanse", {"stepz": 1})
    assert "'neural-cleanse' has no parameter 'stepz'" in told and "did you mean 'steps'?" in told
    assert "its keys: steps" in refused(make, "scan", "neural-cleanse", {"qqqq": 1})
    for wrong in ("many", 0, 1.5):
        told = refused(make, "scan", "neural-cleanse", {"steps": wrong})
        assert "'neural-cleanse.steps'" in told and f"got {wrong!r}" in told
    assert "card" in refused(make, "scan", "neural-cleanse", {"card": 1})
    told = refused(make, "attack", "rare-words", {"words": " "})
    assert r"'rare-words.words': string should match pattern '\S'" in told, "a pattern is told as it is"


def test_a_plugin_is_found_by_its_id(plug: Any) -> None:
    plug("text.scan.toy", "screen.other")
    assert methods("scan")["text.scan.toy"] == "toy_plugin:Toy" and "text.scan.toy" not in methods("screen")
    assert "screen.other" in methods("screen") and "scan.neural-cleanse" in methods("scan")
    assert make("scan", "text.scan.toy", {"steps": "9"}).steps == 9
    assert [item.card.id for item in plan("scan", methods=["text.scan.toy", "neural-cleanse"])] == [
        "text.scan.toy",
        "scan.neural-cleanse",
    ]


def test_every_suggestion_can_be_used(plug: Any) -> None:
    plug("text.scan.toy")
    told = refused(resolve, "scan", "text.scan.toyy")
    suggested = told.split("did you mean '")[1].split("'")[0]
    assert resolve("scan", suggested) == "text.scan.toy"
    known = refused(resolve, "scan", "~~~").split("known: ")[1].split(" (`")[0].split(", ")
    assert {resolve("scan", name) for name in known} == set(methods("scan"))


@pytest.mark.parametrize("names", [("scan.neural-cleanse",), ("text.scan.toy", "text.scan.toy")])
def test_a_doubled_id_is_refused(plug: Any, names: tuple[str, ...]) -> None:
    plug(*names)
    told = refused(methods, "scan")
    assert f"two installed methods carry the id '{names[0]}'" in told and "uninstall one of them" in told


def test_presets_can_be_built() -> None:
    for verb, presets in PRESETS.items():
        assert set(presets) == {"quick", "standard", "thorough"}
        for preset, wanted in presets.items():
            assert [item.card.id for item in plan(verb, preset=preset)] == list(wanted)
    assert plan("scan", preset="quick")[1].steps == 240
    assert plan("scan", preset="quick", params={"neural-cleanse": {"steps": 5}})[1].steps == 5
    assert plan("scan", methods=["neural-cleanse"], preset="quick")[0].steps == 500


def test_a_model_without_gradients_has_presets_of_its_own() -> None:
    assert set(BLACK_BOX) == set(PRESETS["scan"])
    for preset, wanted in BLACK_BOX.items():
        planned = plan("scan", preset=preset, access="probabilities")
        assert [item.card.id for item in planned] == list(wanted)
        assert not any(item.card.needs.access == "gradients" for item in planned)
    assert [item.card.id for item in plan("scan", methods=["neural-cleanse"], access="labels")] == [
        "scan.neural-cleanse"
    ]
    assert is_black_box("scan", "labels") and not is_black_box("screen", "labels")
    assert "is not in the plan" in refused(plan, "scan", params={"neural-cleanse": {"steps": 5}}, access="labels")


def test_plan_refuses_what_it_cannot_build() -> None:
    assert "presets: quick, standard, thorough" in refused(plan, "scan", preset="fast")
    told = refused(plan, "screen", preset="quick", params={"activation-clustering": {"dimensions": 4}})
    assert "is not in the plan" in told and "--method screen.activation-clustering" in told
    assert "no scan method" in refused(plan, "scan", methods=["nothing"])
    assert "no scan method" in refused(plan, "scan", params={"nothing": {}})


def test_parse_sets() -> None:
    assert parse_sets(["neural-cleanse.steps=3", "scan.neural-cleanse.lr=1e-3", "a.b=c=d", "a.e="]) == {
        "neural-cleanse": {"steps": "3"},
        "scan.neural-cleanse": {"lr": "1e-3"},
        "a": {"b": "c=d", "e": ""},
    }
    assert parse_sets([]) == {}
    for wrong in ("steps=3", "neural-cleanse.steps", ".steps=3", "neural-cleanse.=3", "", "="):
        assert f"not '{wrong}'" in refused(parse_sets, [wrong])


def test_explain() -> None:
    assert explain("os201") is CODES["OS201"]
    assert "unknown code 'OS000'" in refused(explain, "OS000") and "OS201" in refused(explain, "OS000")
    for key, code in CODES.items():
        assert key == code.id and all((code.title, code.meaning, code.method, code.false_alarms, code.next_step))


def test_errors_carry_a_hint_and_an_exit_code() -> None:
    error = ConfigError("wrong", hint="do this")
    assert (str(error), error.hint, error.exit_code) == ("wrong", "do this", 2) and isinstance(error, OstiaryError)
