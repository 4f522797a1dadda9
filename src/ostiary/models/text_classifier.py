"""A classifier of texts: texts in, probabilities out, with what a search for triggers needs of its inside."""

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ostiary.core.card import Access
from ostiary.core.errors import ModelError
from ostiary.models.classifier import digest_of
from ostiary.models.tokens import (
    config_of,
    embedding_of,
    fitting_vocabulary,
    positions_of,
    shown_tokens,
    special_tokens,
)
from ostiary.models.trace import first_tensor, head_of, trace

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH = 64
Row = Sequence[int]


class TextClassifier:
    """A transformers model with logits, its tokenizer and its class names: implements `Predictor[list[str]]`.

    A row is the tokens of a text between those that the tokenizer puts around every text, cut so that all of it can be
    read. Rows are padded on the right and the padding is masked, so that what comes out does not depend on the rest of
    a batch. An empty text is a row of the tokens around it, or of one padding where there are none.

    Raises ModelError where the tokenizer has tokens that the embedding has not, or the classes are not as many as the
    logits.
    """

    access: Access = "gradients"

    def __init__(
        self,
        module: nn.Module,
        tokenizer: "Tokenizer",
        classes: Sequence[str],
        *,
        pad: int = 0,
        name: str = "text classifier",
    ) -> None:
        self.module, self.tokenizer, self.name = module.eval(), tokenizer, name
        self.classes, self.pad = tuple(classes), pad
        self.vocabulary = fitting_vocabulary(module, tokenizer, name)
        if not 0 <= pad < self.vocabulary:
            raise ModelError(f"'{name}' has no token {pad} to pad with", hint="check pad_token_id in config.json")
        if (given := int(config_of(module).num_labels)) != len(self.classes):
            raise ModelError(f"'{name}' gives {given} logits and names {len(self.classes)} classes")
        # Models that pool the last token look for it before the padding.
        config_of(module).pad_token_id = pad
        self.special = special_tokens(tokenizer) | {pad}
        self.before, self.after = _around(tokenizer)
        self.limit = max(1, positions_of(module) - len(self.before) - len(self.after))

    @property
    def arch(self) -> str:
        """The class of transformers that the module is of."""
        return f"transformers/{type(self.module).__name__}"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over weights, tokenizer and class names."""
        whole = hashlib.sha256(digest_of(self.module, self.classes).encode())
        whole.update(self.tokenizer.to_str().encode())
        return whole.hexdigest()

    @property
    def words(self) -> tuple[int, ...]:
        """All tokens that show as text: candidates of a search over the vocabulary."""
        return shown_tokens(self.tokenizer, self.vocabulary, self.special)

    def to(self, device: torch.device | str) -> "TextClassifier":
        """Move the weights, in place; returns itself."""
        self.module.to(device)
        return self

    def clone(self) -> "TextClassifier":
        """A deep copy that shares no weights."""
        return TextClassifier(copy.deepcopy(self.module), self.tokenizer, self.classes, pad=self.pad, name=self.name)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without those around it, and not cut."""
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return found

    def decode(self, ids: Row) -> str:
        """The text of tokens, on one line, without special ones."""
        shown: str = self.tokenizer.decode([one for one in ids if one not in self.special])
        return " ".join(shown.split())

    def row(self, ids: Row) -> list[int]:
        """Tokens of a text as the model reads them: cut, and between those around it."""
        return [*self.before, *ids[: self.limit], *self.after] or [self.pad]

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Each text as the model reads it."""
        return [self.row(self.encode(text)) for text in texts]

    def padded(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Rows as one tensor [n, t], padded on the right, and the mask of what is no padding."""
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[self.pad] * (width - len(row))] for row in rows], device=self.device)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        return ids, torch.arange(width, device=self.device)[None] < lengths[:, None]

    def run(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits [n, k] of padded rows, with gradients unless the caller turned them off."""
        found: Tensor = self.module(input_ids=ids, attention_mask=mask.long()).logits
        return found

    def run_embedded(self, ids: Tensor, mask: Tensor, put: Callable[[Tensor], Tensor]) -> Tensor:
        """As `run`, with the embedded rows [n, t, d] gone through `put`: where a search puts vectors for tokens.

        `ids` tell the model where its rows end; what stands at the places that are replaced is of no account, but for
        the padding.
        """
        hook = embedding_of(self.module).register_forward_hook(lambda _, __, output: put(output))
        try:
            return self.run(ids, mask)
        finally:
            hook.remove()

    def logits(self, texts: Sequence[str]) -> Tensor:
        """Logits [n, k], with gradients to the weights."""
        return self._each(self.rows(texts), self.run)

    @torch.no_grad()
    def predict_rows(self, rows: Sequence[Row], *, put: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Probabilities [n, k] of rows of tokens, with `put` as `run_embedded` takes it."""
        made = self.run if put is None else lambda ids, mask: self.run_embedded(ids, mask, put)
        return self._each(rows, made).float().softmax(dim=1)

    def predict(self, texts: Sequence[str], /) -> Tensor:
        """Probabilities [n, k] of texts."""
        return self.predict_rows(self.rows(texts))

    @torch.no_grad()
    def features_rows(self, rows: Sequence[Row]) -> Tensor:
        """As `features`, of rows of tokens."""

        def taken(ids: Tensor, mask: Tensor) -> Tensor:
            kept: list[Tensor] = []

            def keep(_: nn.Module, args: Any, kwargs: Any) -> None:
                if (found := first_tensor(args, kwargs)) is not None:
                    kept.append(found)

            hook = self._head.register_forward_pre_hook(keep, with_kwargs=True)
            try:
                self.run(ids, mask)
            finally:
                hook.remove()
            if kept[-1].dim() == 2:
                return kept[-1]
            # A model whose head sees all tokens answers with the last of each row.
            return kept[-1][torch.arange(len(ids), device=ids.device), mask.sum(dim=1) - 1]

        return self._each(rows, taken).float()

    def features(self, texts: Sequence[str], /) -> Tensor:
        """The input of the module that yields the logits, [n, d]."""
        return self.features_rows(self.rows(texts))

    @cached_property
    def _head(self) -> nn.Module:
        ids, mask = self.padded([self.row(self.words[:1])])
        calls, given = trace(_Logits(self, mask), ids)
        if (name := head_of(calls, given)) is None:
            raise ModelError(f"no layer of '{self.name}' yields its logits, so it has no features")
        return self.module.get_submodule(name.removeprefix("module."))

    def _each(self, rows: Sequence[Row], made: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """`made` of all rows in their order; rows of like length go together, so that little is padding."""
        if not rows:
            return made(*self.padded([self.row(self.words[:1])]))[:0]
        order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
        found = torch.cat([made(*self.padded([rows[at] for at in part])) for part in _batches(order)])
        return found[torch.tensor(order, device=found.device).argsort()]


class _Logits(nn.Module):
    """One pass over rows with a given mask, as a module that gives the logits alone."""

    def __init__(self, model: TextClassifier, mask: Tensor) -> None:
        super().__init__()
        self.module, self._mask, self._run = model.module, mask, model.run

    def forward(self, ids: Tensor) -> Tensor:
        return self._run(ids, self._mask)


def _around(tokenizer: "Tokenizer") -> tuple[list[int], list[int]]:
    """The tokens that the tokenizer puts before and behind every text."""
    bare, whole = (tokenizer.encode("a", add_special_tokens=special).ids for special in (False, True))
    for at in range(len(whole) - len(bare) + 1):
        if whole[at : at + len(bare)] == bare:
            return whole[:at], whole[at + len(bare) :]
    raise ModelError("the tokenizer changes texts where it puts special tokens around them")


def _batches(order: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(order), BATCH):
        yield order[start : start + BATCH]
