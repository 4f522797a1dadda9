"""What reference models say of a model's classes."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.decide import CONFIRM_DISTANCE, decide
from ostiary.core.errors import ConfigError, FormatError
from ostiary.core.records import Candidate, ClassScore, FormName, ModelEvidence, Rate
from ostiary.core.reference import (
    ALPHA,
    DISTANCE,
    LEAST_DISTANCE,
    LEAST_MODELS,
    MEASURE,
    ClassValues,
    Null,
    Reference,
    ReferenceModel,
    Searched,
    read_reference,
    strangeness,
    write_reference,
)

CLASSES = ("ant", "bee", "cat")
RATIO = Limit(measure="ratio", low=3.0)
CARD = Card(
    id="scan.m",
    summary="s",
    paper="p",
    needs=Needs(),
    cost="c",
    code="OS201",
    limits=(RATIO, Limit(measure="flip", low=0.75)),
)


def reference(ratios: np.ndarray, met: bool = True, method: str = "scan.m") -> Reference:
    """Models with these ratios [n, k] under one method."""
    return Reference(
        created="2026-01-02T03:04:05+00:00",
        ostiary="0",
        arch="small-cnn",
        classes=CLASSES,
        input_shape=(3, 8, 8),
        trusted="t",
        trusted_samples=30,
        methods={method: Searched(version="1", params={})},
        models=tuple(
            ReferenceModel(
                name=f"m{number}",
                digest=f"{number}",
                values={
                    method: ClassValues(compared=tuple((math.log(one),) for one in row), others_met=(met,) * len(row)),
                },
            )
            for number, row in enumerate(ratios)
        ),
    )


def drawn(n: int, *, natural: float = 1.0, seed: int = 0) -> np.ndarray:
    """Ratios about 1, those of the class `bee` about `natural`."""
    rng = np.random.default_rng(seed)
    return np.exp(rng.normal(0, 0.1, (n, 3))) * np.array([1.0, natural, 1.0])


def evidence(ratios: list[float], flip: float = 1.0, form: FormName = "patch") -> ModelEvidence:
    rows = tuple(
        ClassScore(label=label, score=r, measures={"ratio": r, "flip": flip}) for label, r in enumerate(ratios)
    )
    candidates = tuple(
        Candidate(
            subject=f"class:{label}",
            target=label,
            score=r,
            size=1.0,
            form=form,
            flip_search=Rate(k=50, n=50),
            flip_held_out=Rate(k=50, n=50),
            artifact="m",
        )
        for label, r in enumerate(ratios)
    )
    return ModelEvidence(score=1.0, per_class=rows, candidates=candidates, examined=("class:0", "class:1", "class:2"))


def null(ratios: np.ndarray, classes: tuple[str, ...] = CLASSES) -> Null:
    return Null(reference(ratios), ["scan.m"], classes)


def p_of(one: Null, ratios: list[float], **how: float) -> list[float | None]:
    return [row.measures.get(MEASURE) for row in one.judge(evidence(ratios, **how), CARD).per_class]


def test_p_is_the_share_of_models_that_are_as_strange_with_the_model_itself() -> None:
    p = p_of(null(drawn(39)), [1.0, 1.0, 9.0])
    assert p[2] == 1 / 40
    assert p[0] is not None and p[0] > 0.5


def test_a_class_is_held_against_the_same_class_of_the_references() -> None:
    """A natural class of 4 is nothing odd where it has 4 in every model, and another class of 4 is."""
    one = null(drawn(39, natural=4.0))
    p = p_of(one, [4.0, 4.0, 1.0])
    assert p[0] == 1 / 40
    assert p[1] is not None and p[1] > ALPHA


def test_without_common_names_all_classes_are_one_kind() -> None:
    """Where the names say nothing, the natural class of 4 widens the null for all."""
    p = p_of(null(drawn(39, natural=4.0), ("0", "1", "2")), [4.0, 1.0, 1.0])
    assert p[0] is not None and p[0] > ALPHA


def test_a_class_that_fails_another_limit_has_no_p_and_counts_nowhere() -> None:
    assert p_of(null(drawn(39)), [1.0, 1.0, 9.0], flip=0.5) == [None, None, None]
    useless = Null(reference(drawn(39) * 50, met=False), ["scan.m"], CLASSES)
    assert list(useless.statistics) == [-math.inf] * 39
    assert useless.false_positives.k == 0


def test_p_holds_over_all_classes_and_methods_together() -> None:
    """Fresh models of the same kind have a class at or below 5 % about 5 % of the time, not once a class."""
    rng = np.random.default_rng(3)
    one = null(drawn(199))
    hits = sum(
        min(p for p in p_of(one, list(np.exp(rng.normal(0, 0.1, 3)))) if p is not None) <= ALPHA for _ in range(400)
    )
    assert 8 <= hits <= 36  # 20 expected; 3.7 standard deviations


def test_the_false_positive_rate_judges_each_reference_by_the_others() -> None:
    odd = drawn(39)
    odd[7, 2] = 20.0
    assert (null(odd).false_positives.k, null(odd).false_positives.n) == (1, 39)
    assert int(np.argmax(null(odd).statistics)) == 7


def test_few_models_are_refused() -> None:
    with pytest.raises(ConfigError, match=f"has {LEAST_MODELS - 1} models; at least {LEAST_MODELS}"):
        null(drawn(LEAST_MODELS - 1))
    assert p_of(null(drawn(LEAST_MODELS)), [1.0, 1.0, 30.0])[2] == pytest.approx(ALPHA)


def test_equal_references_leave_a_least_spread() -> None:
    one = null(np.ones((19, 3)))
    p = p_of(one, [1.0, 1.01, 2.0])
    assert p[0] == 1.0 and p[2] == pytest.approx(0.05)


@pytest.mark.parametrize(("form", "level"), [("patch", "backdoor"), ("frequencies", "backdoor")])
def test_findings_of_judged_evidence(form: FormName, level: str) -> None:
    one = null(drawn(39))
    judged = one.judge(evidence([1.0, 1.0, 9.0], form=form), CARD)
    (found,) = decide(judged, CARD, CLASSES, one)
    assert (found.subject, found.level, found.score, found.threshold) == ("class:2", level, 1 / 40, ALPHA)
    assert found.calibration_id == one.reference.id
    assert "0 of 39 reference models have a class as strange" in found.message


@pytest.mark.parametrize(("ratio", "levels"), [(1.45, []), (1.65, ["suspect"]), (2.5, ["backdoor"])])
def test_a_finding_lies_far_beyond_all_references_and_a_backdoor_farther(ratio: float, levels: list[str]) -> None:
    """All are stranger than every reference model; one only just."""
    one = null(drawn(39))
    judged = one.judge(evidence([1.0, 1.0, ratio]), CARD)
    assert judged.per_class[2].measures[MEASURE] == 1 / 40
    distance = judged.per_class[2].measures[DISTANCE]
    assert (distance >= LEAST_DISTANCE, distance >= CONFIRM_DISTANCE) == (bool(levels), "backdoor" in levels)
    assert [found.level for found in decide(judged, CARD, CLASSES, one)] == levels


def test_a_natural_class_beyond_the_built_in_limit_is_no_finding_against_references() -> None:
    one = null(drawn(39, natural=4.0))
    natural = evidence([1.0, 4.0, 1.0])
    assert [found.subject for found in decide(natural, CARD, CLASSES)] == ["class:1"]
    assert decide(one.judge(natural, CARD), CARD, CLASSES, one) == ()


def test_the_smallest_of_large_triggers_is_nothing_strange() -> None:
    """The ratio of a class is out of all proportion, and its trigger larger than in any reference model."""
    card = dataclasses.replace(CARD, size="size")
    plain = reference(drawn(39))
    sized = [
        model.model_copy(
            update={"values": {"scan.m": ClassValues(compared=tuple(zip(*both, strict=True)), others_met=(True,) * 3)}}
        )
        for model, sizes in zip(plain.models, np.log(drawn(39, seed=1)), strict=True)
        for both in [([own[0] for own in model.values["scan.m"].compared], list(-sizes))]
    ]
    one = Null(plain.model_copy(update={"models": tuple(sized)}), ["scan.m"], CLASSES)

    def p(size: float) -> float:
        told = evidence([1.0, 1.0, 9.0])
        rows = tuple(r.model_copy(update={"measures": {**r.measures, "size": size}}) for r in told.per_class)
        return one.judge(told.model_copy(update={"per_class": rows}), card).per_class[2].measures[MEASURE]

    assert p(1 / 9) == 1 / 40
    assert p(2.0) > 0.5


def test_a_limit_that_is_kept_holds_beside_p() -> None:
    """The class is stranger than all references, and not beyond the card's own limit of 3."""
    kept = dataclasses.replace(CARD, limits=(dataclasses.replace(RATIO, kept=True), *CARD.limits[1:]))
    one = null(drawn(39))
    for card, findings in ((CARD, 1), (kept, 0)):
        judged = one.judge(evidence([1.0, 1.0, 2.5]), card)
        assert (MEASURE in judged.per_class[2].measures) == bool(findings)
        assert len(decide(judged, card, CLASSES, one)) == findings


def test_a_method_that_the_reference_does_not_know_keeps_its_own_limits() -> None:
    one = Null(reference(drawn(39), method="scan.other"), ["scan.other"], CLASSES)
    (found,) = decide(evidence([1.0, 1.0, 9.0]), CARD, CLASSES, one)
    assert (found.threshold, found.calibration_id) == (3.0, "within-model")


def test_strangeness_grows_towards_the_limit() -> None:
    low = CARD
    high = Card(id="scan.h", summary="s", paper="p", needs=Needs(), cost="c", limits=(Limit(measure="p", high=0.05),))
    row = ClassScore(label=0, score=None, measures={"ratio": math.e, "p": 1 / math.e})
    assert strangeness(row, low) == pytest.approx(1) and strangeness(row, high) == pytest.approx(1)
    assert strangeness(ClassScore(label=0, score=None), low) is None


def test_a_reference_comes_back_from_its_file(tmp_path: Path) -> None:
    one, path = reference(drawn(20)), tmp_path / "r.json"
    write_reference(one, path)
    write_reference(one, path)  # in place of the first
    assert read_reference(path) == one and read_reference(path).id == one.id
    assert one.id.startswith("small-cnn-3-2026-01-02-")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "cannot read"),
        ("{", "is no reference"),
        ('{"kind": "scan"}', "is no reference: kind"),
        ("[]", "is no reference"),
    ],
)
def test_what_is_no_reference_is_refused(tmp_path: Path, content: str | None, error: str) -> None:
    path = tmp_path / "r.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(FormatError, match=error):
        read_reference(path)


@pytest.mark.parametrize(
    ("arch", "classes", "shape", "fits"),
    [
        ("small-cnn", 3, (3, 8, 8), True),
        ("wrn-16-1", 3, (3, 8, 8), False),
        ("small-cnn", 4, (3, 8, 8), False),
        ("small-cnn", 3, (1, 8, 8), False),
        (None, 3, (3, 8, 8), False),
    ],
)
def test_a_reference_judges_its_own_kind_alone(
    arch: str | None, classes: int, shape: tuple[int, ...], fits: bool
) -> None:
    assert (reference(drawn(20)).unfit(arch, classes, shape) is None) == fits


def test_the_distance_behind_p_is_told_and_goes_on_where_p_ends() -> None:
    one = null(drawn(39))
    rows = [one.judge(evidence([1.0, 1.0, ratio]), CARD).per_class[2].measures for ratio in (4.0, 9.0)]
    assert rows[0][MEASURE] == rows[1][MEASURE] == 1 / 40
    gap = rows[1][DISTANCE] - rows[0][DISTANCE]
    unit = 1.8  # what the strangest of three classes reaches in one model in ten, in standard deviations
    assert gap == pytest.approx(math.log(9 / 4) / 0.1 / unit, rel=0.4)


def test_a_method_with_a_long_tail_does_not_decide_for_all() -> None:
    rng = np.random.default_rng(5)
    wide = np.exp(rng.normal(0, 0.1, (39, 3)) + 5 * (rng.random((39, 3)) < 0.1))  # now and then a class far out
    one, other = reference(drawn(39)), reference(wide, method="scan.wide")
    models = tuple(
        mine.model_copy(update={"values": {**mine.values, **theirs.values}})
        for mine, theirs in zip(one.models, other.models, strict=True)
    )
    both = one.model_copy(update={"methods": {**one.methods, **other.methods}, "models": models})
    judged = Null(both, ["scan.m", "scan.wide"], CLASSES).judge(evidence([1.0, 1.0, 4.0]), CARD)
    assert judged.per_class[2].measures[MEASURE] <= ALPHA
