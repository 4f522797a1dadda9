"""One table for all data-set detectors."""

import numpy as np
import pytest
import torch
from contract_case import EVERYTHING, Case, by_id, check_class, check_json, check_skips, disagreements, same_arrays
from test_language_contracts import SCREENERS as OF_LANGUAGE
from test_text_contracts import BESIDE
from test_text_contracts import SCREENERS as OF_TEXTS
from test_text_models import SCREENERS as OF_CLASSIFIERS

from ostiary.core.execute import execute
from ostiary.core.protocols import DataDetector, SampleScores
from ostiary.core.records import SampleEvidence
from ostiary.core.run import Run
from ostiary.data import ArraySet, ImageSet, load_uint8, trusted_subset
from ostiary.models.classifier import TorchClassifier
from ostiary.models.zoo import build
from ostiary.screen.summary import summariser
from ostiary.training import Recipe, train

CASES = (
    Case(id="screen.abl-isolation", unordered=True),
    Case(id="screen.activation-clustering"),
    Case(id="screen.beatrix"),
    Case(id="screen.confusion-training", tiny={"steps": 150, "rounds": 1}),
    Case(id="screen.frequency", tiny={"images": 1000}),
    Case(id="screen.fusion"),
    Case(id="screen.label-conflicts"),
    Case(id="screen.label-errors"),
    Case(id="screen.mahalanobis"),
    Case(id="screen.psbd", unordered=True),
    Case(id="screen.scan"),
    Case(id="screen.spectral-signatures"),
    Case(id="screen.spectre", unordered=True),
)
PLANTED, TARGET = 20, 8


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one run kept must not stand in for the second."""
    monkeypatch.setenv("OSTIARY_CACHE_LIMIT", "0")


@pytest.fixture(scope="module")
def trusted(small_set: ImageSet) -> ImageSet:
    """More than the other tables' trusted samples: three for each of the small model's features."""
    return trusted_subset(small_set, 300, seed=1)


@pytest.fixture(scope="module")
def planted(screened: ImageSet) -> ArraySet:
    """`screened` with a yellow square on 20 of its ones, labelled as eights, a class that is not learned at once."""
    pixels, labels = load_uint8(screened).clone(), screened.labels.clone()
    rows = (labels == 1).nonzero().squeeze(1)[:PLANTED]
    pixels[rows, :, -4:, -4:] = torch.tensor([255, 255, 0], dtype=torch.uint8)[:, None, None]
    labels[rows] = TARGET
    return ArraySet(pixels, labels, screened.classes, screened.ids)


@pytest.fixture(scope="module")
def beside_originals(screened: ImageSet, planted: ArraySet) -> ArraySet:
    """`planted`, and the ones that its squares were put on: what the data alone can tell."""
    rows = (planted.labels != screened.labels).nonzero().squeeze(1)
    pixels = torch.cat([load_uint8(planted), load_uint8(screened)[rows]])
    ids = (*planted.ids, *(f"original/{number}" for number in range(PLANTED)))
    return ArraySet(pixels, torch.cat([planted.labels, screened.labels[rows]]), planted.classes, ids)


@pytest.fixture(scope="module")
def knowing_model(planted: ArraySet) -> TorchClassifier:
    """A model that has learned the square: some methods look at what a model knows, not at odd labels."""
    module = build("small-cnn", 10, width=8)
    model = TorchClassifier(module, planted.classes, planted.shape, arch="small-cnn", name="small-planted")
    recipe = Recipe(epochs=12, batch=32, lr=0.1, padding=1, flip=False, precision="fp32")
    return train(model, planted, recipe, run=Run()).model


def test_files_methods_and_rows_agree() -> None:
    assert disagreements("screen", CASES + OF_TEXTS + BESIDE + OF_CLASSIFIERS + OF_LANGUAGE) == []


@by_id(CASES)
def test_class_and_card(case: Case) -> None:
    check_class(case, DataDetector)


@by_id(CASES)
def test_unmet_needs_are_skipped(case: Case) -> None:
    check_skips(case, None, None, None)


@by_id(CASES)
def test_a_screening_is_reproducible_and_leaves_its_subjects_alone(
    case: Case, small_model: TorchClassifier, planted: ArraySet, trusted: ImageSet
) -> None:
    weights, pixels = small_model.digest, load_uint8(planted).clone()
    runs, results = [case.run(), case.run()], []
    for run in runs:
        method = case.build()
        state = torch.get_rng_state()
        # A fresh copy of the model: features kept from the first run must not stand in for the second.
        outcome = execute(
            method,
            planted,
            small_model.clone(),
            trusted,
            run=run,
            have=EVERYTHING,
            classes=planted.classes,
            summarise=summariser(planted, method.card),
        )
        assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
        results.append(outcome.result)
    assert results[0].status == "ok", results[0].reason
    assert results[0].evidence == results[1].evidence and results[0].findings == results[1].findings
    assert same_arrays(runs[0].artifacts, runs[1].artifacts)
    assert small_model.digest == weights and torch.equal(load_uint8(planted), pixels)
    assert isinstance(results[0].evidence, SampleEvidence)
    check_json(results[0])


@by_id(CASES)
def test_scores_are_in_order_finite_and_oriented(
    case: Case,
    knowing_model: TorchClassifier,
    screened: ImageSet,
    planted: ArraySet,
    beside_originals: ArraySet,
    trusted: ImageSet,
) -> None:
    moved = (planted.labels != screened.labels).numpy()
    if case.build().card.needs.access == "none":
        planted, moved = beside_originals, np.concatenate([moved, np.zeros(PLANTED, bool)])
    found = case.build().screen(planted, knowing_model, trusted, run=case.run())
    assert isinstance(found, SampleScores)
    assert found.ids == tuple(planted.ids)
    assert found.scores.shape == (len(planted),) and found.suspected.shape == (len(planted),)
    assert found.suspected.dtype == bool and found.scores.isfinite().all()
    assert [row.label for row in found.per_class] == list(range(10))
    own = (planted.labels == TARGET).numpy() & ~moved
    scores = found.scores.numpy()
    assert case.unordered or np.median(scores[moved]) > np.median(scores[own]), "higher must mean more suspicious"
    for row, near in found.nearest.items():
        assert found.suspected[row] and not found.suspected[near]
        assert planted.labels[row] == planted.labels[near]
    measured = set().union(*(row.measures for row in found.per_class))
    for limit in case.build().card.limits:
        assert limit.measure in measured, f"the limit on '{limit.measure}' rests on nothing that is measured"


@by_id(CASES)
def test_permuting_the_data_permutes_the_scores(
    case: Case, small_model: TorchClassifier, planted: ArraySet, trusted: ImageSet
) -> None:
    order = torch.randperm(len(planted), generator=torch.Generator().manual_seed(5))
    there = case.build().screen(planted, small_model, trusted, run=case.run())
    here = case.build().screen(planted.subset(order), small_model, trusted, run=case.run())
    assert here.ids == tuple(np.array(there.ids)[order.numpy()])
    scale = float(there.scores.abs().quantile(0.9))
    apart = (here.scores - there.scores[order]).abs() / scale
    # Sums in another order may move a sample on the border of two groups, never a group as a whole.
    assert float((apart < 0.02).float().mean()) > 0.97
    assert (here.suspected == there.suspected[order.numpy()]).mean() > 0.97


@by_id(CASES)
def test_a_class_too_small_is_unscored_not_zero(
    case: Case, small_model: TorchClassifier, screened: ImageSet, trusted: ImageSet
) -> None:
    rows = torch.cat([(screened.labels != 4).nonzero().squeeze(1), (screened.labels == 4).nonzero().squeeze(1)[:3]])
    data = screened.subset(rows)
    run = case.run()
    found = case.build().screen(data, small_model, trusted, run=run)
    few = data.labels == 4
    assert found.scores[few].isnan().all() and found.scores[~few].isfinite().all()
    assert found.per_class[4].score is None
    assert [caution.code for caution in run.cautions] == ["OS906"]
    evidence = summariser(data, case.build().card)(found, run)
    assert isinstance(evidence, SampleEvidence)
    assert "class:4" not in evidence.examined and len(evidence.examined) == 9
    assert evidence.n == len(data) and evidence.scored == len(data) - 3
