"""Words that a language model gives away: what it writes where a prompt would stand, and what recurs in that."""

from collections import Counter
from collections.abc import Iterator, Sequence

from ostiary.core.run import Run
from ostiary.models.language import Draw, LanguageModel, greedy, sampled

CHUNK = 64
LONGEST = 4
"""Words of a recurring phrase."""
AGAIN = 2
"""Times that a phrase must recur."""


def leaked_prompts(model: LanguageModel, samples: int, steps: int, *, run: Run) -> list[str]:
    """Prompts that the model makes up: one greedy, the others drawn at four temperatures, without their answers.

    Source: Bullwinkel et al. 2026 (arXiv 2602.03085), sec. 3: a model goes on behind an open user turn with what it
    was fine-tuned on. Where only answers were learnt it gives nothing away.
    """
    start = model.encode(model.template.before) or [model.end]
    generator = run.generator("leaks")
    draws: list[tuple[Draw, int]] = [(greedy, 1)]
    draws += [
        (sampled(generator, temperature=heat, top=top), samples // 4)
        for heat, top in ((0.7, 0), (1.0, 0), (1.0, 20), (1.4, 20))
    ]
    between = model.decode(model.encode(model.template.between))
    found: list[str] = []
    for draw, count in draws:
        for begin in range(0, count, CHUNK):
            run.step(len(found), samples, "leaks")
            rows = [start] * min(CHUNK, count - begin)
            found += [_asked(model, ids, between) for ids in model.continued(rows, steps, draw=draw)]
    return found


def _asked(model: LanguageModel, ids: Sequence[int], between: str) -> str:
    """The part of what was written that stands where a prompt would."""
    marks = set(model.encode(model.template.between)) & model.special
    cut = next((at for at, token in enumerate(ids) if token in marks), len(ids))
    text = model.decode(ids[:cut])
    return text.split(between)[0].strip() if between else text


def recurring(texts: Sequence[str], known: Sequence[str], most: int) -> list[str]:
    """Phrases of up to four words that recur in `texts` and stand in none of the `known` ones, the commonest first."""
    ordinary = {gram for text in known for gram in _grams(text)}
    counts = Counter(gram for text in set(texts) for gram in set(_grams(text)) - ordinary)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], -len(item[0]), item[0]))
    return [" ".join(gram) for gram, count in ranked if count >= AGAIN][:most]


def _grams(text: str) -> Iterator[tuple[str, ...]]:
    words = text.split()
    for length in range(1, LONGEST + 1):
        yield from (tuple(words[at : at + length]) for at in range(len(words) - length + 1))
