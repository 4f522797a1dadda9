"""The contracts carry text and a black box: toy methods go the whole way from plug-in to report."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest
import torch
from contract_case import check_json
from toys.toy_blackbox import Endpoint, ToyLabelFlip
from toys.toy_text import TextSet, ToyRareToken, summariser, toy_reviews

from ostiary.core import catalog
from ostiary.core.card import Have
from ostiary.core.catalog import make, methods
from ostiary.core.protocols import Classifier, DataDetector, LabelledSet, ModelScanner, Predictor
from ostiary.core.records import Record, SampleEvidence
from ostiary.core.run import Run
from ostiary.core.session import Options, Session
from ostiary.core.store import load_artifact, read_record
from ostiary.data import ArraySet, ImageSet, per_class_counts, split
from ostiary.report.render import render_html
from ostiary.training import accuracy

TEXT = Have(modality="text", training_data=True)
LABELS = Have(access="labels", modality="images", trusted_per_class=10)


@pytest.fixture(autouse=True)
def plugged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The toys are installed as another distribution would install them."""
    points = EntryPoints(
        [
            EntryPoint("text.screen.toy-rare-token", "toys.toy_text:ToyRareToken", "ostiary.methods"),
            EntryPoint("scan.toy-label-flip", "toys.toy_blackbox:ToyLabelFlip", "ostiary.methods"),
        ]
    )
    monkeypatch.setenv("OSTIARY_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(catalog, "entry_points", lambda group: points.select(group=group))
    methods.cache_clear()
    yield
    methods.cache_clear()


def screen_text(data: TextSet) -> Record:
    """As a text verb would: the toy through a session."""
    method = make("screen", "text.screen.toy-rare-token", {"share": "0.12"})
    session = Session("screen", "reviews", data.classes, Options(seed=1), {}, {"data": data.digest}, (method.card.id,))
    session.execute(method, data, None, None, have=TEXT, summarise=summariser(data, method.card))
    return session.finish()


def scan_endpoint(model: Endpoint, trusted: ImageSet, have: Have = LABELS, **params: object) -> Record:
    """As a black-box verb would: the toy through a session."""
    method = make("scan", "toy-label-flip", params)
    session = Session(
        "scan", "endpoint", model.classes, Options(seed=1), {}, {"model": model.digest}, (method.card.id,)
    )
    session.execute(method, model, trusted, have=have)
    return session.finish()


def endpoint(backdoored: bool, corner: int = 3) -> Endpoint:
    """Three bands of mean brightness; a backdoored one answers 2 for any picture with a bright corner."""

    def answer(x: torch.Tensor) -> torch.Tensor:
        labels = (x.mean((1, 2, 3)) * 3).long().clamp(0, 2)
        bright = x[:, :, -corner:, -corner:].flatten(1).min(1).values > 0.9
        return torch.where(bright & torch.tensor(backdoored), torch.tensor(2), labels)

    return Endpoint(answer, ("dark", "grey", "bright"), f"endpoint-{backdoored}")


@pytest.fixture
def bands() -> ImageSet:
    rng = np.random.default_rng(0)
    labels = np.arange(150) % 3
    pixels = (labels[:, None, None, None] * 85 + 30 + rng.integers(0, 20, (150, 3, 6, 6))).astype(np.uint8)
    return ArraySet(pixels, labels, ("dark", "grey", "bright"))


def pages_tell(record: Record, folder: Path, *words: str) -> None:
    page = render_html([(record, folder)])
    assert page.startswith("<!doctype html>") or page.lower().startswith("<!doctype html>")
    assert [word for word in words if word not in page] == []
    assert page == render_html([(record, folder)])


def test_the_toys_follow_the_protocols() -> None:
    data = toy_reviews()
    assert isinstance(data, LabelledSet) and isinstance(ToyRareToken(), DataDetector)
    assert isinstance(ToyLabelFlip(), ModelScanner)
    box = endpoint(False)
    assert isinstance(box, Predictor) and not isinstance(box, Classifier)


def test_what_serves_images_serves_text() -> None:
    data = toy_reviews(poisoned=0)
    parts = split(data, (0.5, 0.5), seed=3)
    assert [per_class_counts(part) for part in parts] == [(30, 30), (30, 30)]
    assert not set(parts[0].ids) & set(parts[1].ids) and isinstance(parts[0].take([0, 1]), list)


def test_a_black_box_is_measured_as_a_model_is(bands: ImageSet) -> None:
    assert accuracy(endpoint(False), bands).k == 150


def test_text_goes_from_data_to_report() -> None:
    data = toy_reviews(poisoned=12)
    record = screen_text(data)
    result = record.results[0]
    assert result.status == "ok", result.reason
    assert record.verdict == "suspect" and [finding.subject for finding in result.findings] == ["class:1"]
    assert "positive" in result.findings[0].message and result.findings[0].level == "suspect"
    evidence = result.evidence
    assert isinstance(evidence, SampleEvidence) and evidence.suspected == 12 and evidence.scored == len(data)
    named = {suspect.id for suspect in evidence.suspects}
    assert named == {identity for identity, text in zip(data.ids, data.texts, strict=True) if text.endswith(" cf")}
    assert Record.model_validate_json(record.to_json()) == record
    check_json(result)
    again, folder = read_record(record.id)
    assert again == record and len(load_artifact(record, folder, "toy-rare-token-scores")) == len(data)
    pages_tell(record, folder, "toy-rare-token", "reviews", min(named))


def test_text_without_a_trigger_token_gives_no_finding() -> None:
    record = screen_text(toy_reviews(poisoned=0))
    assert record.verdict == "none-found" and record.results[0].findings == ()
    assert record.coverage.ok == ("text.screen.toy-rare-token",)


def test_an_unscored_text_class_is_not_a_pass() -> None:
    data = toy_reviews(poisoned=0)
    record = screen_text(TextSet(data.texts, data.labels, ("negative", "positive", "mixed")))
    assert record.verdict == "incomplete"
    pages_tell(record, read_record(record.id)[1], "toy-rare-token")


def test_a_text_method_is_skipped_on_images_and_the_other_way_round(bands: ImageSet) -> None:
    session = Session("screen", "s", ("a",), Options(), {}, {}, ())
    outcome = session.execute(ToyRareToken(), bands, None, have=Have(modality="images", training_data=True))
    assert outcome.result.reason == "works on text only, this is images"
    assert session.execute(ToyLabelFlip(), None, None, have=TEXT).result.reason == "works on images only, this is text"
    assert session.finish().verdict == "incomplete"


def test_a_black_box_goes_from_model_to_report(bands: ImageSet) -> None:
    record = scan_endpoint(endpoint(True), bands)
    result = record.results[0]
    assert result.status == "ok", result.reason
    assert [(f.subject, f.level, f.confirmed) for f in result.findings] == [("class:2", "backdoor", True)]
    assert record.verdict == "backdoor" and "flips" in result.findings[0].message
    assert Record.model_validate_json(record.to_json()) == record
    check_json(result)
    again, folder = read_record(record.id)
    assert again == record and load_artifact(record, folder, "toy-label-flip-mask").shape == (3, 6, 6)
    pages_tell(record, folder, "toy-label-flip", "endpoint", "OS201", "class 2")


def test_a_black_box_without_a_candidate_is_suspect_at_most(bands: ImageSet) -> None:
    record = scan_endpoint(endpoint(True), bands, evidence="scores")
    (found,) = record.results[0].findings
    assert (found.level, found.confirmed, found.artifacts) == ("suspect", False, ())
    assert "flip_held_out" in found.message and "smaller" not in found.message
    pages_tell(record, read_record(record.id)[1], "toy-label-flip")


def test_an_ordinary_black_box_gives_no_finding(bands: ImageSet) -> None:
    record = scan_endpoint(endpoint(False), bands)
    assert record.verdict == "none-found" and record.results[0].findings == ()
    pages_tell(record, read_record(record.id)[1], "toy-label-flip")


def test_a_method_that_needs_gradients_is_skipped_on_a_black_box(bands: ImageSet) -> None:
    session = Session("scan", "endpoint", ("a",), Options(), {}, {}, ("scan.neural-cleanse", "scan.toy-label-flip"))
    outcome = session.execute(make("scan", "neural-cleanse"), endpoint(True), bands, have=LABELS)
    assert outcome.result.reason == "needs model access 'gradients', has 'labels'"
    assert session.finish().coverage.skipped == ("scan.neural-cleanse",)


def test_a_black_box_is_reproducible(bands: ImageSet) -> None:
    one, two = (ToyLabelFlip().scan(endpoint(True), bands, run=Run(seed=2)) for _ in range(2))
    assert one == two
