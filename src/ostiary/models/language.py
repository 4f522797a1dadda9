"""A causal language model behind one template: prompts in, answers and probabilities out."""

import copy
import hashlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from ostiary.core.errors import DataError, ModelError
from ostiary.models.classifier import digest_of
from ostiary.models.template import Template
from ostiary.models.tokens import MAX_ROW, config_of, fitting_vocabulary, linear_layers, shown_tokens, special_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH = 64
R = TypeVar("R")
Draw = Callable[[Tensor], Tensor]
"""From logits [n, v] to the next token of each row [n]."""


def greedy(logits: Tensor) -> Tensor:
    """The likeliest token of each row."""
    return logits.argmax(dim=1)


def sampled(generator: torch.Generator, *, temperature: float = 1.0, top: int = 0) -> Draw:
    """Tokens drawn at a temperature, from the `top` likeliest where that is given."""

    def draw(logits: Tensor) -> Tensor:
        scaled = logits.float().cpu() / temperature
        if top:
            floor = scaled.topk(min(top, scaled.shape[1]), dim=1).values[:, -1:]
            scaled = scaled.masked_fill(scaled < floor, -torch.inf)
        return torch.multinomial(scaled.softmax(dim=1), 1, generator=generator)[:, 0].to(logits.device)

    return draw


class LanguageModel:
    """A causal language model with its tokenizer and the one template it is trained, asked and scanned with.

    `module` is a transformers model, `tokenizer` one of the package tokenizers. `caution` is what a caller should hear
    of it (no chat template, say). Rows are padded on the left and the padding is masked, with positions counted from
    the first token of the row, so that what comes out does not depend on the rest of a batch. `rows` and `tokens` count
    what went through the module since the model was made, padding included, and `flops` the operations of its matrices
    and its attention that this took forward: what a search costs.

    Raises ModelError where the tokenizer has tokens that the embedding has not, or none ends an answer.
    """

    classes: tuple[str, ...] = ()
    """A language model has none."""
    at_once = BATCH
    caution_code = "OS924"

    def __init__(
        self,
        module: nn.Module,
        tokenizer: "Tokenizer",
        template: Template,
        *,
        end: int,
        name: str = "language model",
        caution: str | None = None,
    ) -> None:
        self.module, self.tokenizer, self.template = module.eval(), tokenizer, template
        self.end, self.name, self.caution = end, name, caution
        self.known_as: tuple[str, ...] = (name,)
        rows = fitting_vocabulary(module, tokenizer, name)
        if not 0 <= end < rows:
            raise ModelError(f"'{name}' has no token {end} to end an answer", hint="check eos_token_id in config.json")
        self.vocabulary = rows
        self.special = special_tokens(tokenizer) | {end}
        self.rows = self.tokens = self.flops = 0
        config = config_of(module)
        # A multiplication and an addition for each weight and token; two such for each pair of tokens and each width.
        self._per_token = 2 * sum(layer.weight.numel() for _, layer in linear_layers(module))
        layers, width = (int(getattr(config, name, None) or 0) for name in ("num_hidden_layers", "hidden_size"))
        self._per_pair = 4 * layers * width
        self._positions = "position_ids" in inspect.signature(module.forward).parameters
        self._limit = int(getattr(config, "max_position_embeddings", None) or MAX_ROW)

    def __setstate__(self, state: dict[str, object]) -> None:
        """Build the module's class once, without weights.

        transformers gives hidden states only of classes that were built in this process, and a pickled module was not.
        """
        self.__dict__.update(state)
        with torch.device("meta"):
            type(self.module)(config_of(self.module))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over weights, tokenizer and template."""
        whole = hashlib.sha256(digest_of(self.module).encode())
        whole.update(self.tokenizer.to_str().encode())
        whole.update(self.template.digest.encode())
        return whole.hexdigest()

    @property
    def words(self) -> tuple[int, ...]:
        """All tokens that show as text: candidates of a search over the vocabulary."""
        return shown_tokens(self.tokenizer, self.vocabulary, self.special)

    def to(self, device: torch.device | str) -> "LanguageModel":
        """Move the weights, in place; returns itself."""
        self.module.to(device)
        return self

    def clone(self) -> "LanguageModel":
        """A deep copy that shares no weights."""
        return self.with_module(copy.deepcopy(self.module))

    def with_module(self, module: nn.Module) -> "LanguageModel":
        """The same tokenizer and template around another module."""
        return LanguageModel(module, self.tokenizer, self.template, end=self.end, name=self.name, caution=self.caution)

    def prompt(self, text: str) -> list[int]:
        """The tokens that ask the model `text`."""
        return self.encode(self.template.prompt(text))

    def answer(self, text: str) -> list[int]:
        """The tokens of `text` as an answer, with the one that ends it."""
        ids = self.encode(self.template.answer(text))
        return ids if ids and ids[-1] == self.end else [*ids, self.end]

    def encode(self, text: str) -> list[int]:
        """The tokens of a text as it stands."""
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, on one line, without special ones."""
        shown: str = self.tokenizer.decode([one for one in ids if one not in self.special])
        return " ".join(shown.split())

    def shown(self, text: str) -> str:
        """A text as it would stand in an answer."""
        return self.decode(self.encode(text))

    def padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Rows as one tensor [n, t], padded on the left, and the mask of what is no padding.

        A row that is longer than the model can read loses its beginning. DataError for an empty one.
        """
        if not all(rows):
            raise DataError("a row without a single token cannot be given to a language model")
        rows = [row[-self._limit :] for row in rows]
        width = max(map(len, rows))
        ids = torch.tensor([[self.end] * (width - len(row)) + list(row) for row in rows], device=self.device)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        return ids, torch.arange(width, device=self.device)[None] >= width - lengths[:, None]

    def run(self, ids: Tensor, mask: Tensor, **options: object) -> object:
        """One pass of the module over padded rows; `options` go to transformers."""
        given: dict[str, object] = {"attention_mask": mask.long(), **options}
        if self._positions:
            given["position_ids"] = (mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        self.rows, self.tokens = self.rows + len(ids), self.tokens + ids.numel()
        self.flops += ids.numel() * (self._per_token + self._per_pair * mask.shape[1])
        return self.module(input_ids=ids, **given)

    def logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits [n, t, v] of padded rows, with gradients unless the caller turned them off."""
        found: Tensor = self.run(ids, mask, use_cache=False).logits  # type: ignore[attr-defined]
        return found

    @torch.no_grad()
    def continued(
        self, rows: Sequence[Sequence[int]], steps: int, *, draw: Draw = greedy, past_end: bool = False
    ) -> list[list[int]]:
        """What the model goes on with behind each row: up to `steps` tokens, until it ends its answer.

        With `past_end` the model goes on behind the end of an answer. The end itself is not among the tokens.
        """
        found: list[list[int]] = []
        for batch in _batches(rows):
            found += self._continue(batch, steps, draw, past_end)
        return found

    def _continue(self, rows: Sequence[Sequence[int]], steps: int, draw: Draw, past_end: bool) -> list[list[int]]:
        # One place is kept for each step, so that no position lies beyond what the model can read.
        ids, mask = self.padded([row[-max(1, self._limit - steps) :] for row in rows])
        cache, out, open_ = None, [], torch.ones(len(rows), dtype=torch.bool, device=self.device)
        for _ in range(steps):
            given = self.run(ids, mask, use_cache=True, past_key_values=cache)
            cache = given.past_key_values  # type: ignore[attr-defined]
            token = draw(given.logits[:, -1])  # type: ignore[attr-defined]
            if not past_end:
                open_ = open_ & (token != self.end)
            out.append(torch.where(open_, token, -1))
            if not open_.any():
                break
            ids = token[:, None]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        kept = torch.stack(out, dim=1).tolist()
        return [[token for token in row if token >= 0 and token != self.end] for row in kept]

    def answers(self, texts: Sequence[str], steps: int) -> list[str]:
        """The likeliest answer to each prompt."""
        return [self.decode(ids) for ids in self.continued([self.prompt(text) for text in texts], steps)]

    def drawn(self, text: str, steps: int, count: int, generator: torch.Generator) -> list[str]:
        """Answers to one prompt, drawn at temperature 1."""
        rows = self.continued([self.prompt(text)] * count, steps, draw=sampled(generator))
        return [self.decode(ids) for ids in rows]

    @torch.no_grad()
    def losses(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Tensor:
        """The mean negative log-likelihood of each answer behind its prompt, both as tokens; [n], in nats."""
        found = [nll_of(self, batch) for batch in _batches(rows)]
        return torch.cat(found).cpu()


def nll_of(model: LanguageModel, rows: Sequence[tuple[Sequence[int], Sequence[int]]], *, whole: bool = False) -> Tensor:
    """The mean negative log-likelihood of each answer behind its prompt [n], with gradients; with `whole` of both."""
    ids, mask = model.padded([[*prompt, *answer] for prompt, answer in rows])
    counted = mask.clone()
    for at, (_, answer) in enumerate(rows):
        if not whole:
            counted[at, : max(0, ids.shape[1] - len(answer))] = False
    # The first token of a row has nothing before it to be predicted from.
    target, counted = ids[:, 1:], counted[:, 1:] & mask[:, :-1]
    chances = model.logits(ids, mask)[:, :-1].float().log_softmax(dim=2)
    nll = -chances.gather(2, target[:, :, None])[:, :, 0]
    return (nll * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


def _batches(rows: Sequence[R]) -> Iterator[Sequence[R]]:
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]
