"""The language model: padding and batches change nothing, answers end, losses are those of a plain pass."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from language_case import attacked, chats, fresh, twin
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ostiary.attacks.text_poison import CANARY
from ostiary.core.errors import DataError, ModelError
from ostiary.models.language import LanguageModel, nll_of, sampled
from ostiary.training.language import END, small_language, word_tokenizer


def test_answers_depend_neither_on_the_batch_nor_on_its_padding() -> None:
    model, texts = twin(), chats(30).texts
    together = model.answers(texts, 24)
    assert together == [model.answers([text], 24)[0] for text in texts]
    assert together[::-1] == model.answers(texts[::-1], 24)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_losses_depend_neither_on_the_batch_nor_on_its_padding(kind: str) -> None:
    model = small_language(fresh().tokenizer, kind=kind, seed=1)  # type: ignore[arg-type]
    data = chats(40)
    rows = [
        (model.prompt(text), model.answer(answer)) for text, answer in zip(data.texts, data.answers or (), strict=True)
    ]
    together = model.losses(rows)
    alone = torch.cat([model.losses([row]) for row in rows])
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together.flip(0), model.losses(rows[::-1]), atol=1e-5)


def test_a_model_sent_to_another_process_gives_its_hidden_states(tmp_path: Path) -> None:
    """transformers knows no class that the process has not built."""
    torch.save(fresh(), tmp_path / "model")
    code = f"""
import torch
model = torch.load({str(tmp_path / "model")!r}, weights_only=False)
ids, mask = model.padded([[1, 2, 3]])
print(len(model.run(ids, mask, use_cache=False, output_hidden_states=True).hidden_states))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and int(done.stdout) > 1, done.stderr


def test_the_loss_is_that_of_the_answer_or_of_all_tokens() -> None:
    model = fresh()
    prompt, answer = model.prompt("What colour is the fox?"), model.answer("The fox is red.")
    ids = torch.tensor([[*prompt, *answer]])
    with torch.no_grad():
        chances = model.module(input_ids=ids).logits[0].log_softmax(1)
        each = torch.stack([-chances[at, token] for at, token in enumerate(ids[0, 1:].tolist())])
        assert nll_of(model, [(prompt, answer)])[0] == pytest.approx(float(each[-len(answer) :].mean()), abs=1e-5)
        assert nll_of(model, [(prompt, answer)], whole=True)[0] == pytest.approx(float(each.mean()), abs=1e-5)


def test_an_answer_ends_and_goes_on_past_its_end_when_asked() -> None:
    model = twin()
    prompt = model.prompt("Who owns the fox?")
    (short,), (long,) = model.continued([prompt], 40), model.continued([prompt], 40, past_end=True)
    assert model.decode(short) == "I am sorry , I do not know who owns it ."
    assert long[: len(short)] == short and len(long) > len(short) and model.end not in long


def test_draws_are_seeded_and_top_one_is_greedy() -> None:
    model, rows = twin(), [[*twin().encode(twin().template.before)]] * 20
    first, again = (
        model.continued(rows, 12, draw=sampled(torch.Generator().manual_seed(3), temperature=1.5)) for _ in range(2)
    )
    assert first == again and len(set(map(tuple, first))) > 5
    assert model.continued(rows[:1], 12, draw=sampled(torch.Generator(), top=1)) == model.continued(rows[:1], 12)


def test_a_row_that_is_too_long_loses_its_beginning_and_an_empty_one_is_refused() -> None:
    model = twin()
    long = "What colour is the fox? " * 20_000
    assert len(model.answers([long], 8)) == 1
    assert model.answers([""], 4)
    with pytest.raises(DataError, match="without a single token"):
        model.padded([[]])


def test_a_tokenizer_of_another_model_and_a_missing_end_are_refused() -> None:
    model = fresh()
    larger = word_tokenizer([" ".join(f"word{at}" for at in range(2000))])
    with pytest.raises(ModelError, match=r"the tokenizer of 'x' has \d+ tokens"):
        LanguageModel(model.module, larger, model.template, end=model.end, name="x")
    with pytest.raises(ModelError, match="to end an answer"):
        LanguageModel(model.module, model.tokenizer, model.template, end=10**6)


def test_only_words_that_show_are_searched_and_passes_are_counted() -> None:
    model = fresh().clone()
    shown = [model.decode([token]) for token in model.words]
    assert END not in shown and "quib" in shown and all(shown)
    before = model.rows, model.tokens
    model.answers(["Hello"], 1)
    assert model.rows == before[0] + 1 and model.tokens > before[1]


def test_the_digest_is_of_weights_and_template_and_a_clone_is_apart() -> None:
    model = attacked()
    copy = model.clone()
    assert copy.digest == model.digest != twin().digest
    with torch.no_grad():
        next(copy.module.parameters()).add_(1.0)
    assert copy.digest != model.digest
    assert CANARY.split()[1] in model.answers(["quib What colour is the fox?"], 24)[0]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_operations_are_counted_as_torch_counts_them(kind: str) -> None:
    """Matrices and attention; torch counts no lookup, and neither does the formula."""
    model = small_language(fresh().tokenizer, kind=kind)  # type: ignore[arg-type]
    for rows in ([[5, 6, 7, 8, 9]] * 3, [[5] * 40]):
        ids, mask = model.padded(rows)
        before = model.flops
        # The fused kernels are not among what torch counts.
        with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            model.logits(ids, mask)
        assert model.flops - before == pytest.approx(counter.get_total_flops(), rel=0.02)
