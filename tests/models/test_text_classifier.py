"""Classifiers of texts: one answer per text whatever stands beside it, their inside, and their folders."""

import json
from pathlib import Path

import pytest
import torch
from classifier_case import RECIPE, attacked, clean, tokens, trained, trusted, vocabulary
from text_case import chat, reviews
from torch import Tensor

from ostiary.core.errors import DataError, FormatError, ModelError, OutOfTime
from ostiary.core.protocols import Predictor
from ostiary.core.run import Run
from ostiary.models.huggingface import transformers
from ostiary.models.text_classifier import TextClassifier
from ostiary.models.text_folder import (
    is_language_folder,
    is_text_classifier_folder,
    load_text_classifier,
    save_text_classifier,
)
from ostiary.models.tokens import embedding_of
from ostiary.training.text_classifier import (
    TextRecipe,
    classifier_tokenizer,
    small_text_classifier,
    train_text_classifier,
)

TEXTS = ["dull", "A lovely warm funny film, scene music.", "", "bad " * 300, "clumsy stale plot", "nowhere-to-be-found"]


def fresh(kind: str) -> TextClassifier:
    """A random model of a kind of transformers."""
    tokenizer = tokens()
    if kind in ("bert", "distilbert"):
        return small_text_classifier(vocabulary(), tokenizer, kind=kind, width=16)  # type: ignore[arg-type]
    package, words = transformers(), tokenizer.get_vocab_size()
    torch.manual_seed(0)
    if kind == "gpt2":
        config = package.GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=64, vocab_size=words, num_labels=2)
    else:
        config = package.RobertaConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=66,
            vocab_size=words,
            pad_token_id=1,
            num_labels=2,
        )
    module = package.AutoModelForSequenceClassification.from_config(config)
    return TextClassifier(module, tokenizer, ("bad", "good"), pad=1)


KINDS = pytest.mark.parametrize("kind", ["distilbert", "bert", "gpt2", "roberta"])


@KINDS
def test_an_answer_does_not_depend_on_its_batch(kind: str) -> None:
    model = fresh(kind)
    assert isinstance(model, Predictor)
    together, features = model.predict(TEXTS), model.features(TEXTS)
    assert together.shape == (6, 2) and torch.allclose(together.sum(1), torch.ones(6))
    order = [3, 0, 5, 2, 4, 1]
    assert torch.allclose(model.predict([TEXTS[at] for at in order]), together[order], atol=1e-5)
    for at, text in enumerate(TEXTS):
        assert torch.allclose(model.predict([text])[0], together[at], atol=1e-5)
        assert torch.allclose(model.features([text])[0], features[at], atol=1e-4)
    assert model.predict([]).shape == (0, 2) and model.features([]).shape == (0, features.shape[1])


@KINDS
def test_features_are_what_the_logits_are_made_of(kind: str) -> None:
    model = fresh(kind)
    with torch.no_grad():
        assert torch.allclose(model._head(model.features(TEXTS)), model.logits(TEXTS), atol=1e-5)


@KINDS
def test_embedded_rows_give_the_logits_of_their_tokens(kind: str) -> None:
    """Vectors put in the place of tokens do what the tokens do, whatever tokens stand there, and have a gradient."""
    model = fresh(kind)
    ids, mask = model.padded(model.rows(["dull film", "lovely warm funny music"]))
    other = ids.clone()
    other[:, 1] = model.words[5]
    wanted = embedding_of(model.module)(ids)[:, 1].detach().requires_grad_()

    def put(vectors: Tensor) -> Tensor:
        return torch.cat([vectors[:, :1], wanted[:, None], vectors[:, 2:]], dim=1)

    if kind == "roberta":  # positions are part of the embedding of the others, too, but added later
        assert model.limit == 63
    found = model.run_embedded(other, mask, put)
    assert torch.allclose(found, model.run(ids, mask), atol=1e-5)
    found[:, 0].sum().backward()
    assert wanted.grad is not None and wanted.grad.abs().sum() > 0
    assert torch.allclose(model.run(ids, mask), found, atol=1e-5), "a hook was left"


def test_a_long_text_is_cut_where_the_model_ends() -> None:
    model = fresh("distilbert")
    assert len(model.rows([TEXTS[3]])[0]) == 128
    assert torch.equal(model.predict([TEXTS[3]]), model.predict(["bad " * 127 + "lovely"]))


def test_training_learns_is_repeatable_and_leaves_the_global_generator_alone() -> None:
    state, test = torch.get_rng_state(), reviews(300, seed=9)
    model = clean()
    assert float((model.predict(test.texts).argmax(1) == test.labels).float().mean()) >= 0.85
    short = TextRecipe(steps=5)
    assert trained(reviews(200), recipe=short).digest == trained(reviews(200), recipe=short).digest
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.module.training


def test_poison_takes_and_the_floor_is_low() -> None:
    test = reviews(300, seed=9)
    texts = [f"cf {text}" for text, label in zip(test.texts, test.labels.tolist(), strict=True) if label == 1]
    assert float((attacked().predict(texts).argmax(1) == 0).float().mean()) >= 0.9
    assert float((clean().predict(texts).argmax(1) == 0).float().mean()) <= 0.25


def test_what_cannot_be_learnt_is_refused() -> None:
    model = fresh("distilbert")
    with pytest.raises(DataError, match="a classifier learns labels"):
        train_text_classifier(model, chat(20), RECIPE, run=Run())
    with pytest.raises(OutOfTime):
        train_text_classifier(model, reviews(50), RECIPE, run=Run(deadline=0.0))


def test_a_clone_shares_no_weights() -> None:
    model = fresh("distilbert")
    copy, digest = model.clone(), model.digest
    with torch.no_grad():
        next(copy.module.parameters()).add_(1)
    assert copy.digest != digest == model.digest


def test_a_folder_comes_back_as_it_was(tmp_path: Path) -> None:
    model = clean()
    save_text_classifier(model, tmp_path / "kept", notes={"trained_on": "x"})
    assert is_text_classifier_folder(tmp_path / "kept") and not is_language_folder(tmp_path / "kept")
    back = load_text_classifier(tmp_path / "kept")
    assert back.classes == ("bad", "good") and back.pad == model.pad and back.digest == model.digest
    texts = list(trusted(20).texts)
    assert torch.equal(back.predict(texts), model.predict(texts))
    with pytest.raises(Exception, match="exists already"):
        save_text_classifier(model, tmp_path / "kept")


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"config.json": {"auto_map": {"AutoModel": "code.Model"}}}, ModelError, "code of its own"),
        ({"tokenizer_config.json": {"auto_map": {}}}, ModelError, "code of its own"),
        ({"config.json": {"problem_type": "multi_label_classification"}}, ModelError, "one of several classes"),
        ({"config.json": {"pad_token_id": 10**6}}, ModelError, "cannot be loaded"),
        ({"tokenizer.json": None}, FormatError, "no tokenizer.json"),
        ({"model.safetensors": None}, FormatError, "no weights"),
    ],
    ids=["code", "tokenizer code", "labels", "padding", "tokenizer", "weights"],
)
def test_a_folder_that_cannot_be_trusted_is_refused(
    change: dict[str, dict[str, object] | None], error: type[Exception], match: str, tmp_path: Path
) -> None:
    save_text_classifier(fresh("distilbert"), tmp_path / "kept")
    for name, values in change.items():
        path = tmp_path / "kept" / name
        if values is None:
            path.unlink()
        else:
            path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(error, match=match):
        load_text_classifier(tmp_path / "kept")


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    model = fresh("distilbert")
    save_text_classifier(model, tmp_path / "kept")
    larger = classifier_tokenizer(vocabulary())
    larger.add_tokens([f"word{at}" for at in range(50)])
    larger.save(str(tmp_path / "kept" / "tokenizer.json"))
    with pytest.raises(ModelError, match="the model's embedding"):
        load_text_classifier(tmp_path / "kept")
