"""Flower's own robust strategies as a rule, so that they stand beside the others; reused, not written again."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.errors import NotMet
from ostiary.core.run import Run
from ostiary.federated.verdict import Aggregated, Array, Context, Reason, at_least, verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowerRule:
    """One of Flower's robust strategies, called as Flower calls it, on replies that it would get.

    `declared` is f, how many clients attack as the strategy is told; no other rule is told such a number. Sources:
    Blanchard et al. 2017 (Krum, Multi-Krum with n - f selected), El Mhamdi et al. 2018 (Bulyan), Yin et al. 2018
    (trimmed mean, median).
    """

    card: ClassVar[Card] = Card(
        id="aggregate.flower",
        summary="one of Flower's robust strategies (Krum, Multi-Krum, Bulyan, trimmed mean, median) at a declared f",
        paper="Blanchard et al. 2017, El Mhamdi et al. 2018, Yin et al. 2018",
        official_code="https://github.com/flwrlabs/flower",
        needs=Needs(),
        cost="as in Flower: distances on whole weights; Bulyan collects garbage once a client",
        deviations=("replies are float64 here, so that Flower's distances are exact; in float32 they are not",),
        blind_spots=(
            "more attackers than declared",
            "Krum with fewer than 2 f + 3 clients, for which it promises nothing and which Flower does not refuse",
            "under Krum and Multi-Krum, updates kept as short as honest ones",
        ),
        marks=frozenset({"mechanism"}),
    )

    strategy: Literal["krum", "multi-krum", "bulyan", "trimmed-mean", "median"] = "multi-krum"
    declared: Annotated[int, Field(ge=0)] = 4

    def aggregate(self, updates: Array, context: Context, /, *, run: Run) -> Aggregated:
        """Aggregate one round. Raises NotMet without Flower, or with fewer clients than f allows."""
        f, n = self.declared, len(updates)
        least = {"bulyan": 4 * f + 3, "trimmed-mean": 2 * f + 1, "median": 1}.get(self.strategy, f + 1)
        at_least(least, context, f"{self.card.id} ({self.strategy}, f = {f})")
        made, chosen = self._made(n)
        contents = _contents(updates, context)
        # What a strategy selects is seen by the rule that selects; the rest takes all.
        replies = [SimpleNamespace(content=content, has_error=lambda: False) for content in contents]
        with _unlogged():
            arrays, _ = made.aggregate_train(context.round, replies)
        update = next(iter(arrays.values())).numpy() - context.weights
        kept = chosen or contents
        mine = [_among(content, kept) for content in contents]
        refused = {i: Reason("OS529", f"{self.strategy} did not select it") for i in range(n) if not mine[i]}
        shares = context.shares if self.strategy in ("krum", "multi-krum") else np.ones(n)
        weights = np.where(mine, shares, 0.0)
        return verdict(update, weights / weights.sum(), np.full(n, np.nan), refused)

    def _made(self, n: int) -> tuple[Any, list[Any]]:
        """The strategy, and the list in which it leaves what it selected."""
        try:
            from flwr.serverapp import strategy
            from flwr.serverapp.strategy.multikrum import select_multikrum
        except ImportError as error:
            raise NotMet("this rule needs Flower: pip install 'ostiary[federated]'") from error
        f, chosen = self.declared, []

        def select(contents: list[Any], malicious: int, select_many: int) -> list[Any]:
            chosen.extend(select_multikrum(contents, malicious, select_many))
            return list(chosen)

        return _strategies(strategy, f, n, select)[self.strategy](), chosen


def _strategies(flower: Any, f: int, n: int, select: Callable[..., Any]) -> dict[str, Callable[[], Any]]:
    class Selected(flower.MultiKrum):  # type: ignore[misc] # Flower is an extra that mypy does not read
        """Flower's MultiKrum, whose selection can be seen."""

        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            contents = [reply.content for reply in replies]
            kept = select(contents, self.num_malicious_nodes, self.num_nodes_to_select)
            return flower.FedAvg.aggregate_train(self, server_round, [r for r in replies if _among(r.content, kept)])

    return {
        "krum": lambda: Selected(num_malicious_nodes=f, num_nodes_to_select=1),
        "multi-krum": lambda: Selected(num_malicious_nodes=f, num_nodes_to_select=n - f),
        "bulyan": lambda: flower.Bulyan(num_malicious_nodes=f, selection_rule=select),
        # Flower cuts int(beta n) at either end.
        "trimmed-mean": lambda: flower.FedTrimmedAvg(beta=min((f + 0.5) / n, 0.5 - 1e-9)),
        "median": flower.FedMedian,
    }


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """Flower logs a line for each round of each strategy; what is said of a round here is its verdict."""
    log = logging.getLogger("flwr")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def _among(one: Any, many: list[Any]) -> bool:
    return any(one is other for other in many)


def _contents(updates: Array, context: Context) -> list[Any]:
    from flwr.app import Array as FlowerArray
    from flwr.app import ArrayRecord, MetricRecord, RecordDict

    return [
        RecordDict(
            {
                "arrays": ArrayRecord({"weights": FlowerArray(context.weights + update)}),
                "metrics": MetricRecord({"num-examples": float(share)}),
            }
        )
        for update, share in zip(updates, context.shares, strict=True)
    ]
