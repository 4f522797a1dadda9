"""What all models of texts share: a tokenizer that fits the embedding, and which of its tokens show as text."""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ostiary.core.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_ROW = 16_384
"""Tokens of a row beyond which it is cut, where the model names no limit of its own."""


def embedding_of(module: nn.Module) -> nn.Module:
    """The module that turns tokens into vectors."""
    found: nn.Module = module.get_input_embeddings()  # type: ignore[operator]
    return found


def table_of(module: nn.Module) -> Tensor:
    """The vectors of all tokens [v, d], without gradients."""
    found: Any = embedding_of(module)
    table: Tensor = found.weight.detach()
    return table


def linear_layers(module: nn.Module) -> list[tuple[str, Any]]:
    """The linear layers of a transformers model by name, those that store their weights turned among them."""
    from transformers.pytorch_utils import Conv1D

    return [(name, one) for name, one in module.named_modules() if isinstance(one, nn.Linear | Conv1D)]


def config_of(module: nn.Module) -> Any:
    """The config of a transformers model."""
    return module.config


def fitting_vocabulary(module: nn.Module, tokenizer: "Tokenizer", name: str) -> int:
    """How many tokens the embedding has; raises ModelError where the tokenizer has one beyond them."""
    rows = len(table_of(module))
    known = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
    if known >= rows:
        raise ModelError(
            f"the tokenizer of '{name}' has {known + 1} tokens, the model's embedding {rows}",
            hint="the tokenizer is that of another model; take both from one folder",
        )
    return rows


def special_tokens(tokenizer: "Tokenizer") -> frozenset[int]:
    """The tokens that stand for no text."""
    return frozenset(token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special)


def shown_tokens(tokenizer: "Tokenizer", vocabulary: int, special: frozenset[int]) -> tuple[int, ...]:
    """All tokens that show as text: candidates of a search over the vocabulary."""
    shown = ((token, tokenizer.decode([token]).strip()) for token in range(vocabulary))
    return tuple(token for token, text in shown if token not in special and text and text.isprintable())


def positions_of(module: nn.Module) -> int:
    """How many tokens a row may have.

    Positions that an embedding keeps for padding are not for tokens (RoBERTa counts from behind them).
    """
    limit = int(getattr(config_of(module), "max_position_embeddings", None) or MAX_ROW)
    for part in module.modules():
        if isinstance(part, nn.Embedding) and part.num_embeddings == limit and part.padding_idx is not None:
            return limit - part.padding_idx - 1
    return limit
