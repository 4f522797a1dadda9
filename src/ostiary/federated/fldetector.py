"""FLDetector: an honest client's update follows from its last one; one that does not is suspicious."""

from collections import deque
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.run import Run
from ostiary.federated.geometry import weighted
from ostiary.federated.verdict import Aggregated, Array, Context, Reason, at_least, generator, verdict

REFERENCES = 20
"""Uniform sets that the gap statistic compares with."""


def hessian_times(steps: Array, changes: Array, vector: Array) -> Array:
    """The L-BFGS estimate of (Hessian times `vector`) [d] from past steps [k, d] and changes of gradient [k, d].

    The compact form of Byrd, Nocedal, Schnabel 1994, as in alg. 1 of FLDetector. It maps the last step to the last
    change exactly. A zero vector where the past says nothing.
    """
    products = steps @ changes.T
    lengths = steps @ steps.T
    if lengths[-1, -1] == 0:
        return np.zeros_like(vector)
    sigma = products[-1, -1] / lengths[-1, -1]
    lower = np.tril(products, -1)
    middle = np.block([[-np.diag(np.diag(products)), lower.T], [lower, sigma * lengths]])
    right = np.concatenate([changes @ vector, sigma * (steps @ vector)])
    p, q = np.split(np.linalg.lstsq(middle, right, rcond=None)[0], 2)
    return np.asarray(sigma * vector - changes.T @ p - sigma * (steps.T @ q))


def within(values: Array) -> tuple[float, float, int]:
    """Of sorted numbers: the squared spread as one group, as the best two, and the size of the lower one."""
    n = len(values)
    sums, squares = np.cumsum(values), np.cumsum(values**2)
    k = np.arange(1, n)
    low = squares[:-1] - sums[:-1] ** 2 / k
    high = squares[-1] - squares[:-1] - (sums[-1] - sums[:-1]) ** 2 / (n - k)
    best = int(np.argmin(low + high))
    return float(squares[-1] - sums[-1] ** 2 / n), float((low + high)[best]), best + 1


def higher_group(scores: Array, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The clients of the higher of two groups, if the gap statistic prefers two groups to one; else nobody."""
    nobody = np.zeros(len(scores), bool)
    width = scores.max() - scores.min()
    if width <= 1e-12 * abs(scores.max()):
        return nobody
    order = np.argsort(scores, kind="stable")
    one, two, low = within((scores[order] - scores.min()) / width)
    tiny = 1e-12
    logs = np.array(
        [np.log(np.maximum(within(np.sort(rng.uniform(size=len(scores))))[:2], tiny)) for _ in range(REFERENCES)]
    )
    gap = logs.mean(0) - np.log(np.maximum([one, two], tiny))
    error = logs[:, 1].std() * np.sqrt(1 + 1 / REFERENCES)
    if gap[0] >= gap[1] - error:
        return nobody
    found = nobody.copy()
    found[order[low:]] = True
    return found


@dataclass(slots=True)
class _Past:
    """What the rule remembers: the last model, update and updates of clients, and the window."""

    weights: Array
    update: Array
    clients: dict[str, Array]
    steps: deque[Array]
    changes: deque[Array]
    errors: dict[str, deque[float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class FLDetector:
    """Foretells each update from the client's last one and a Hessian that the rounds gave, and refuses the worst group.

    Source: Zhang, Cao, Jia, Gong 2022, FLDetector (KDD; arXiv 2207.09209), alg. 1 to 3. The error of a client, as a
    part of all errors of the round, is averaged over `window` rounds; where the gap statistic finds two groups, the
    higher one is refused. Until a window is full nobody is judged (caution OS930).
    """

    card: ClassVar[Card] = Card(
        id="aggregate.fldetector",
        summary="refuses clients whose updates do not follow from their last ones",
        paper="Zhang et al. 2022, KDD, arXiv 2207.09209",
        needs=Needs(),
        cost="keeps the last update of each client and 2 window vectors as large as the model",
        deviations=(
            "refuses round by round, where the paper starts the training anew without whom it found",
            "the gap statistic decides between one and two groups alone, by exact 2-means on a line",
            "where clients take turns, a client is judged in a round only if it answered in the one before",
        ),
        blind_spots=(
            "an attack that is steady from its first round",
            "clients that train many steps, or on unlike data: their updates follow less",
            "the rounds before the window is full",
        ),
        marks=frozenset({"mechanism"}),
    )

    window: Annotated[int, Field(ge=1)] = 10

    def aggregate(self, updates: Array, context: Context, /, *, run: Run) -> Aggregated:
        """Aggregate one round; scores are errors averaged over the window. Raises NotMet below 3 clients."""
        at_least(3, context, self.card.id)
        past: _Past | None = context.memory.get(self.card.id)
        gradients = -np.asarray(updates, np.float64)
        scores = np.full(len(updates), np.nan)
        if past is not None:
            step = context.weights - past.weights
            if past.steps:
                self._judge(past, step, gradients, context)
                means = {name: float(np.mean(seen)) for name, seen in past.errors.items() if len(seen) == self.window}
                scores = np.array([means.get(name, np.nan) for name in context.clients])
        judged = np.isfinite(scores)
        bad = np.zeros(len(updates), bool)
        if judged.sum() >= 3:
            bad[judged] = higher_group(scores[judged], generator(self.card.id, context, run))
        else:
            run.caution("OS930", f"round {context.round}: 'fldetector' has not seen enough rounds to judge")
        shares = np.where(bad, 0, context.shares)
        weights = shares / shares.sum()
        update = weighted(updates, weights)
        self._remember(past, update, gradients, context)
        median = float(np.median(scores[judged])) if judged.any() else 0.0
        refused = {
            int(i): Reason("OS526", f"its error over {self.window} rounds is {scores[i]:.3g}, the median {median:.3g}")
            for i in np.flatnonzero(bad)
        }
        return verdict(update, weights, scores, refused)

    def _judge(self, past: _Past, step: Array, gradients: Array, context: Context) -> None:
        """Add this round's errors of the clients whose update of the round before is known."""
        change = hessian_times(np.array(past.steps), np.array(past.changes), step)
        errors = {
            name: float(np.linalg.norm(past.clients[name] + change - gradient))
            for name, gradient in zip(context.clients, gradients, strict=True)
            if name in past.clients
        }
        total = sum(errors.values())
        for name, error in errors.items():
            past.errors.setdefault(name, deque(maxlen=self.window)).append(error / total if total else 0.0)

    def _remember(self, past: _Past | None, update: Array, gradients: Array, context: Context) -> None:
        """Keep what the next round needs."""
        clients = dict(zip(context.clients, gradients, strict=True))
        if past is None:
            steps: deque[Array] = deque(maxlen=self.window)
            kept = _Past(context.weights.copy(), -update, clients, steps, deque(maxlen=self.window))
            context.memory[self.card.id] = kept
            return
        step, change = context.weights - past.weights, -update - past.update
        if step.any():
            past.steps.append(step)
            past.changes.append(change)
        past.weights, past.update = context.weights.copy(), -update
        # An update that is older does not follow from the last step of the model alone.
        past.clients = clients
