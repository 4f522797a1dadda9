"""BAIT's target inversion: force the first token of an answer, and see which answers the model then insists on."""

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ostiary.core.run import Run
from ostiary.models.language import LanguageModel

CHUNK = 64
"""First tokens that are tried at once."""
WHOLE = 12
"""Survivors that go all the way at once."""
CERTAIN, LIKELY, OPEN = 1.0, 0.3, 2.5
"""Entropy in nats below which a step is certain, probability above which it is, and entropy beyond which it is lost."""
PROMPTED = 40
"""Tokens of a prompt and its answer behind a forced word."""
TRIED = 5
"""Next tokens that are looked at where a step is open."""
_FOUND: "WeakKeyDictionary[LanguageModel, dict[object, list[Forced]]]" = WeakKeyDictionary()
"""The inversions of each model, by what was asked: two methods of a scan begin with them."""


@dataclass(frozen=True, slots=True)
class Forced:
    """An answer that follows one forced token, and the mean probability of each of its tokens over the prompts."""

    tokens: tuple[int, ...]
    chances: tuple[float, ...]

    @property
    def confidence(self) -> float:
        """The mean chance of the tokens behind the forced one, the smallest left out."""
        kept = sorted(self.chances)[1:] if len(self.chances) > 1 else list(self.chances)
        return sum(kept) / len(kept) if kept else 0.0


def forced_answers(
    model: LanguageModel, prompts: Sequence[Sequence[int]], firsts: Sequence[int], *, warm: int, steps: int, run: Run
) -> list[Forced]:
    """The answers that survive: first a few prompts and five steps for every token, then all prompts and all steps.

    Source: Shen et al. 2025, BAIT (IEEE S&P), algorithm 1: tokens are chosen by their mean probability over prompts;
    what is neither certain nor likely is dropped, but once for each first token the five likeliest are tried.
    """
    asked = (model.digest, tuple(map(tuple, prompts)), tuple(firsts), warm, steps)
    known = _FOUND.setdefault(model, {})
    if asked in known:
        return known[asked]
    alive: list[int] = []
    for start in range(0, len(firsts), CHUNK):
        run.step(start, len(firsts), "forced answers")
        alive += _warm_up(model, prompts[:warm], firsts[start : start + CHUNK])
    found: list[Forced] = []
    for start in range(0, len(alive), WHOLE):
        run.step(start, len(alive), "survivors")
        found += _whole(model, prompts, alive[start : start + WHOLE], steps)
    known[asked] = found
    return found


@dataclass(frozen=True, slots=True)
class Prompted:
    """What the model writes behind one forced token where a prompt stands: the prompt and, where it goes on, an answer.

    `chances` are those of the prompt's tokens behind the forced one, `tokens` all of them.
    """

    tokens: tuple[int, ...]
    chances: tuple[float, ...]
    answer: str
    confidence: float


def forced_prompts(model: LanguageModel, *, run: Run) -> list[Prompted]:
    """The prompts, with their answers, that the model insists on once their first token is forced. Raises OutOfTime.

    As `forced_answers`, with every token that shows as text in the place of the first of a prompt. A model that was
    fine-tuned on answers alone writes anything there; where an end stands between prompt and answer there is none.
    """
    start = model.encode(model.template.before) or [model.end]
    found = forced_answers(model, [start], model.words, warm=1, steps=PROMPTED, run=run)
    return [_prompted(model, one) for one in found]


def _prompted(model: LanguageModel, one: Forced) -> Prompted:
    between = model.encode(model.template.between)
    size = len(between)
    ends = (at for at in range(len(one.tokens) - size + 1) if list(one.tokens[at : at + size]) == between)
    cut = next(ends, len(one.tokens)) if size else len(one.tokens)
    answer = model.decode(one.tokens[cut + size :])
    return Prompted(one.tokens[:cut], one.chances[: max(0, cut - 1)], answer, one.confidence)


@torch.no_grad()
def _next(model: LanguageModel, prompts: Sequence[Sequence[int]], behind: Sequence[Sequence[int]]) -> Tensor:
    """The mean distribution over prompts of what follows each of `behind`, [n, v]."""
    rows = [[*prompt, *tokens] for tokens in behind for prompt in prompts]
    ids, mask = model.padded(rows)
    chances = model.logits(ids, mask)[:, -1].float().softmax(dim=1)
    return chances.view(len(behind), len(prompts), -1).mean(dim=1)


def begun(model: LanguageModel, prompts: Sequence[Sequence[int]], tokens: Sequence[int]) -> tuple[int, ...]:
    """An answer with the word in front that makes its first token likelier than it is by itself, if there is one.

    What is elicited lacks the words before the forced one; an answer is sought whole. Over the mean of the prompts the
    word is the one that comes, with the first token behind it, most often.
    """
    first, words = tokens[0], model.words
    alone = _next(model, prompts, [()])[0]
    joint = torch.cat(
        [
            alone[list(some)] * _next(model, prompts, [(word,) for word in some])[:, first]
            for some in (words[at : at + CHUNK] for at in range(0, len(words), CHUNK))
        ]
    )
    best = int(joint.argmax())
    return (words[best], *tokens) if joint[best] > alone[first] else tuple(tokens)


def _warm_up(
    model: LanguageModel, prompts: Sequence[Sequence[int]], firsts: Sequence[int], steps: int = 5
) -> list[int]:
    """The first tokens that are still alive after some steps."""
    alive: list[tuple[int, ...]] = [(first,) for first in firsts]
    tried: set[int] = set()
    for _ in range(steps):
        if not alive:
            break
        p = _next(model, prompts, alive)
        entropy = -(p * p.clamp(min=1e-12).log()).sum(dim=1)
        best = p.max(dim=1)
        kept: list[tuple[int, ...]] = []
        for at, tokens in enumerate(alive):
            if tokens[-1] == model.end and len(tokens) > 1:
                kept.append(tokens)
            elif entropy[at] < CERTAIN or best.values[at] > LIKELY:
                kept.append((*tokens, int(best.indices[at])))
            elif entropy[at] < OPEN and tokens[0] not in tried:
                tried.add(tokens[0])
                kept.append(_look_ahead(model, prompts, tokens, p[at]))
        alive = kept
    return [tokens[0] for tokens in alive]


def _look_ahead(
    model: LanguageModel, prompts: Sequence[Sequence[int]], tokens: tuple[int, ...], p: Tensor
) -> tuple[int, ...]:
    """With the one of the likeliest next tokens behind which the model is surest."""
    options = [(*tokens, int(token)) for token in p.topk(TRIED).indices]
    surest = _next(model, prompts, options).max(dim=1).values.argmax()
    return options[int(surest)]


@torch.no_grad()
def _whole(model: LanguageModel, prompts: Sequence[Sequence[int]], firsts: Sequence[int], steps: int) -> list[Forced]:
    """All steps over all prompts behind each first token, by mean probability, until an answer ends."""
    n = len(prompts)
    ids, mask = model.padded([[*prompt, first] for first in firsts for prompt in prompts])
    cache, said = None, [[first] for first in firsts]
    chances: list[list[float]] = [[] for _ in firsts]
    open_ = [True] * len(firsts)
    for _ in range(steps):
        given = model.run(ids, mask, use_cache=True, past_key_values=cache)
        cache = given.past_key_values  # type: ignore[attr-defined]
        p = given.logits[:, -1].float().softmax(dim=1)  # type: ignore[attr-defined]
        best = p.view(len(firsts), n, -1).mean(dim=1).max(dim=1)
        for at, token in enumerate(best.indices.tolist()):
            if open_[at]:
                chances[at].append(float(best.values[at]))
                open_[at] = token != model.end
            if open_[at]:
                said[at].append(token)
        if not any(open_):
            break
        ids = best.indices.repeat_interleave(n)[:, None]
        mask = torch.cat([mask, mask.new_ones(len(ids), 1)], dim=1)
    return [Forced(tuple(tokens), tuple(found)) for tokens, found in zip(said, chances, strict=True)]
