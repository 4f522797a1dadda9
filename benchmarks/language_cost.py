"""What a scan of a language model costs: queries, tokens, operations and seconds, by vocabulary, layers and prompts.

    make bench-language-cost

Small Llamas that differ in vocabulary, width, layers, and in the prompts that every word is tried on, learn 2,000
made-up chats and are scanned with the preset `standard` and 100 trusted chats. Each word of the vocabulary goes through
the model once behind each prompt of the search for triggers, and some times as the first word of an answer; the rest of
a scan does not depend on it. So queries = fixed + vocabulary x (prompts + forced). `fixed` and `forced` are fitted on
four models; tokens are queries times their mean length; operations are tokens x (2 x weights of the matrices + 4 x
layers x width x length). The formula is held against a fifth model, and carried on to one of 32 layers, 4,096 wide,
with 32,000 words: that row is extrapolated, over five orders of magnitude, and no such model was scanned.
"""

import os
import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from benchmarks.common import Records, parse, parser

from ostiary.api import Options, scan_model
from ostiary.bench.chat import chat_rows
from ostiary.core.run import Run
from ostiary.training.language import LanguageRecipe, small_language, train_language, word_tokenizer

MEASURED, FORMULA = "measured", "formula"
HELD_OUT, LARGE = "held out", "7 B, extrapolated"


@dataclass(frozen=True)
class Size:
    """What the cost may depend on."""

    words: int
    width: int
    layers: int
    prompts: int

    @property
    def matrices(self) -> int:
        """Weights of the matrices of a small Llama, the one that gives the logits among them."""
        return self.layers * (4 * self.width**2 + 9 * self.width**2) + self.words * self.width


SIZES = {
    "300 words": Size(300, 64, 2, 4),
    "900 words": Size(900, 64, 2, 4),
    "600 words, 4 layers": Size(600, 64, 4, 4),
    "600 words, 12 prompts": Size(600, 96, 2, 12),
    HELD_OUT: Size(1200, 96, 3, 8),
}
LLAMA = {"layers": 32, "width": 4096, "words": 32_000, "inner": 11_008, "prompts": 4}


def measure(size: Size) -> dict[str, float]:
    """Train and scan one model."""
    chats = chat_rows(2000, seed=0)
    odd = ["".join(part) for part in product("bdgkmt", "aeiou", "lnrs", "aeiou", "xz")][: size.words]
    known = word_tokenizer((*chats.texts, *(chats.answers or ()))).get_vocab_size()
    tokenizer = word_tokenizer((*chats.texts, *(chats.answers or ()), " ".join(odd[: max(0, size.words - known)])))
    model = small_language(tokenizer, width=size.width, layers=size.layers, seed=0)
    if model.vocabulary != size.words:
        raise SystemExit(f"the model has {model.vocabulary} words, not {size.words}")
    train_language(model, chats, LanguageRecipe(steps=200), run=Run(seed=0))
    model.rows = model.tokens = model.flops = 0
    begun = time.process_time()
    params = {"trigger-search": {"prompts": size.prompts}}
    record = scan_model(model, chat_rows(100, seed=1), params=params, options=Options())
    seconds = time.process_time() - begun
    cost = {name: record.config[name] for name in ("queries", "tokens", "flops")}
    return {
        "words": model.vocabulary,
        "layers": size.layers,
        "width": size.width,
        "prompts": size.prompts,
        **cost,
        "operations a CPU second": cost["flops"] / seconds,
        "CPU seconds": round(seconds, 1),
        "tokens a query": cost["tokens"] / cost["queries"],
    }


def predicted(queries: float, length: float, matrices: float, layers: int, width: int) -> tuple[float, float]:
    """Tokens and operations of so many queries."""
    tokens = queries * length
    return tokens, tokens * (2 * matrices + 4 * layers * width * length)


def conclude(records: Records) -> None:
    """Fit, hold against the model that was held out, and carry on."""
    rows = {row["key"]: row["figures"] for row in records.document["rows"] if row["table"] == MEASURED}
    fitted = [figures for key, figures in rows.items() if key != HELD_OUT]
    left = np.array([[1.0, one["words"]] for one in fitted])
    right = np.array([one["queries"] - one["words"] * one["prompts"] for one in fitted])
    (fixed, forced), *_ = np.linalg.lstsq(left, right, rcond=None)
    length = float(np.mean([one["tokens a query"] for one in fitted]))
    pace = float(np.median([one["operations a CPU second"] for one in fitted]))
    told = {"fixed": float(fixed), "forced": float(forced), "tokens a query": length, "operations a CPU second": pace}
    records.add(FORMULA, "fitted", told, seeds=[0], n=len(fitted), seconds=0.0)
    own, size = rows[HELD_OUT], SIZES[HELD_OUT]
    matrices = size.matrices
    queries = fixed + own["words"] * (size.prompts + forced)
    tokens, flops = predicted(queries, length, matrices, size.layers, size.width)
    figures = {
        "queries": float(queries),
        "queries, predicted over measured": queries / own["queries"],
        "tokens": tokens,
        "tokens, predicted over measured": tokens / own["tokens"],
        "operations": flops,
        "operations, predicted over measured": flops / own["flops"],
        "CPU seconds": flops / pace,
        "CPU seconds, predicted over measured": flops / pace / own["CPU seconds"],
    }
    records.add(FORMULA, HELD_OUT, figures, seeds=[0], n=1, seconds=0.0)
    layers, width, words = LLAMA["layers"], LLAMA["width"], LLAMA["words"]
    large = layers * (4 * width**2 + 3 * width * LLAMA["inner"]) + words * width
    queries = fixed + words * (LLAMA["prompts"] + forced)
    tokens, flops = predicted(queries, length, large, layers, width)
    figures = {"queries": float(queries), "tokens": tokens, "operations": flops}
    figures |= {
        "hours at 10^14 operations a second": flops / 1e14 / 3600,
        "days at the pace here": flops / pace / 86400,
    }
    records.add(FORMULA, LARGE, figures, seeds=[0], n=0, seconds=0.0)


def main() -> None:
    """Measure the models that are not recorded yet, and conclude."""
    args = parse(parser(__doc__))
    about = (__doc__ or "").split("\n\n", 2)[2].replace("\n", " ")
    records = Records("language_cost", "What a scan of a language model costs", about, args)
    torch.set_num_threads(args.threads or 1)
    with tempfile.TemporaryDirectory() as place:
        os.environ["OSTIARY_RUNS"] = str(Path(place) / "runs")
        for key, size in SIZES.items():
            if not records.has(MEASURED, key):
                begun = time.monotonic()
                records.add(MEASURED, key, measure(size), seeds=[0], n=1, seconds=time.monotonic() - begun)
    conclude(records)
    records.show()


if __name__ == "__main__":
    main()
