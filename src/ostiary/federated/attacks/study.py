"""A federation of the digits with attackers in it, and what came of it. Only here truth and rule meet."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from ostiary.core.records import Rate
from ostiary.core.run import Run
from ostiary.federated.admission import Admission, Reply
from ostiary.federated.attacks.sight import DataPoison, Sight, UpdateAttack, joined
from ostiary.federated.layout import Tensors
from ostiary.federated.network import Labels, Network, Recipe, Trainable, fit, shards
from ostiary.federated.rounds import Client, Round, Server, Watch, run_rounds
from ostiary.federated.stamps import stamped
from ostiary.federated.verdict import Array

TEST, ROOT = 450, 100
HELD = 0.5
"""An attack is alive while its success is at least this."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Images [n, h, w] or [n, h, w, c] in [0, 1] and labels [n]; the first `kept` are not shared out.

    Without `kept` the study draws what it keeps back.
    """

    images: Array
    labels: Labels
    kept: int | None = None


def the_digits() -> Samples:
    """The 1797 digits of scikit-learn, 8 x 8."""
    source = load_digits()
    return Samples(source.images / 16.0, source.target.astype(np.int64))


@dataclass(frozen=True, kw_only=True, slots=True)
class Threat:
    """What the attackers do: their poison, their training, and in which rounds (first, last).

    Half of each batch is poison where `share` is 0.5: so many of the attacker's samples are poisoned.
    """

    data: DataPoison
    updates: tuple[UpdateAttack, ...] = ()
    first: int = 11
    last: int = 30
    share: float = 0.5
    recipe: Recipe = Recipe(epochs=6)  # noqa: RUF009 - frozen


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a round left: the new `model`; `success` is the attack's, None without a threat.

    `honest_refused` and `attackers_refused` count clients of whom the new model has no part.
    """

    round: Round
    model: Tensors
    accuracy: Rate
    success: Rate | None
    honest_refused: Rate
    attackers_refused: Rate


@dataclass(frozen=True, kw_only=True)
class Federation:
    """Samples among `clients` clients, of whom `bad` may attack; all that is drawn comes from `seed`.

    Of the `samples`, the digits where there are none, `test` are kept back where they do not say which; of these
    `root_size` are the server's trusted ones and the rest measures. The others are shared out, alike or by Dirichlet
    (`alpha`). The server trains on its trusted samples and on `stamps` marked copies of each; with `root_size` 0 it has
    no update of its own.
    """

    seed: int
    alpha: float | None = None
    clients: int = 20
    bad: int = 4
    samples: Samples | None = None
    test: int = TEST
    root_size: int = ROOT
    stamps: int = 2
    network: Trainable = Network()  # noqa: RUF009 - frozen
    recipe: Recipe = Recipe()  # noqa: RUF009 - frozen

    @cached_property
    def _parts(self) -> tuple[Array, Labels, np.ndarray, list[np.ndarray]]:
        source = the_digits() if self.samples is None else self.samples
        rng = np.random.default_rng([self.seed, 1])
        total, kept = len(source.labels), source.kept
        if kept is None:
            kept, order = self.test, rng.permutation(total)
        else:
            order = np.concatenate([rng.permutation(kept), kept + rng.permutation(total - kept)])
        rest = order[kept:]
        parts = shards(source.labels[rest], self.clients, rng, alpha=self.alpha)
        return source.images, source.labels, order[:kept], [rest[part] for part in parts]

    @property
    def names(self) -> tuple[str, ...]:
        """The clients."""
        return tuple(f"client-{i:02d}" for i in range(self.clients))

    @cached_property
    def attackers(self) -> tuple[str, ...]:
        """The clients that attack, drawn at random; sealed truth."""
        chosen = np.random.default_rng([self.seed, 2]).choice(self.clients, self.bad, replace=False)
        return tuple(self.names[i] for i in sorted(chosen))

    def shard(self, name: str) -> tuple[Array, Labels]:
        """The samples of a client."""
        images, labels, _, parts = self._parts
        rows = parts[self.names.index(name)]
        return images[rows], labels[rows]

    @cached_property
    def root(self) -> tuple[Array, Labels]:
        """The server's trusted samples."""
        images, labels, kept, _ = self._parts
        return images[kept[: self.root_size]], labels[kept[: self.root_size]]

    @cached_property
    def measuring(self) -> tuple[Array, Labels]:
        """The samples that measure."""
        images, labels, kept, _ = self._parts
        return images[kept[self.root_size :]], labels[kept[self.root_size :]]

    def rng(self, *what: int) -> np.random.Generator:
        """A generator of its own for each purpose."""
        return np.random.default_rng([self.seed, *what])

    def trained(self, weights: Array, x: Array, y: Labels, rng: np.random.Generator, **how: Any) -> Array:
        """The update of local training on images."""
        recipe = how.pop("recipe", self.recipe)
        return fit(self.network, weights, x.reshape(len(x), -1), y, recipe, rng, **how) - weights

    def server(self, rule: Any, admission: Admission | None = None) -> Server:
        """A server before its first round, whose own update is trained as the clients' are."""
        network = self.network
        x, y = self.root
        rounds = itertools.count(1)

        def own(weights: Array) -> Array:
            rng = self.rng(4, next(rounds))
            return self.trained(weights, *stamped(x, y, rng, copies=self.stamps), rng)

        return Server(
            network.tensors(network.fresh(self.rng(3))),
            rule,
            admission or Admission(),
            root=own if len(y) else None,
            probe=network.probabilities,
            input_shape=(network.inputs,),
            head=network.head,
        )


@dataclass(slots=True)
class _Band:
    """The attackers of one run: they train honestly to know the usual length, and remember the last model."""

    federation: Federation
    threat: Threat
    before: Array | None = None
    seen: Array | None = None
    number: int = 0
    radius: float = 0.0

    def look(self, weights: Array, number: int) -> None:
        """Once a round: what changed, and how long the attackers' own honest updates are."""
        if number == self.number:
            return
        self.number, self.before, self.seen = number, self.seen, weights
        if not self.threat.first <= number <= self.threat.last:
            return
        lengths = [
            float(np.linalg.norm(_honest(self.federation, name, weights, number))) for name in self.federation.attackers
        ]
        self.radius = float(np.median(lengths))

    def update(self, name: str, weights: Array, number: int) -> Array:
        """The update of an attacker."""
        self.look(weights, number)
        federation, threat = self.federation, self.threat
        if not threat.first <= number <= threat.last:
            return _honest(federation, name, weights, number)
        member = federation.attackers.index(name)
        x, y = federation.shard(name)
        rng = federation.rng(5, number, member)
        chosen = rng.permutation(len(y))[: max(1, round(threat.share * len(y)))]
        bad_x, bad_y = threat.data.poison(x[chosen], y[chosen], member=member)
        rest = np.setdiff1d(np.arange(len(y)), chosen)
        flat = x.reshape(len(x), -1)
        sight = Sight(
            weights,
            None if self.before is None else weights - self.before,
            lambda: federation.network.gradient(weights, flat, y),
            self.radius,
        )
        hooks = joined([attack.arm(sight) for attack in threat.updates])
        update = federation.trained(
            weights,
            np.concatenate([x[rest], bad_x]),
            np.concatenate([y[rest], bad_y]),
            rng,
            recipe=threat.recipe,
            change=hooks.change,
            project=hooks.project,
        )
        return update if hooks.finish is None else hooks.finish(update)


def _honest(federation: Federation, name: str, weights: Array, number: int) -> Array:
    x, y = federation.shard(name)
    return federation.trained(weights, x, y, federation.rng(6, number, federation.names.index(name)))


def run_study(
    federation: Federation,
    rule: Any,
    threat: Threat | None,
    *,
    rounds: int = 50,
    admission: Admission | None = None,
    run: Run | None = None,
    watch: Watch | None = None,
) -> Iterator[Outcome]:
    """What each round of a federation came to under a rule, measured on samples nobody trained on."""
    run = Run(seed=federation.seed) if run is None else run
    server = federation.server(rule, admission)
    clients = _clients(federation, threat)
    bad = frozenset(federation.attackers)
    for done in run_rounds(clients, server, rounds, run=run, watch=watch):
        weights = federation.network.flat(server.model)
        good = frozenset(federation.names) - bad
        # Without a verdict nobody was refused but those that were not admitted.
        gone = frozenset(done.refused) if done.verdict is None else frozenset(federation.names) - done.accepted
        yield Outcome(
            done,
            server.model,
            measured(federation, weights, *federation.measuring),
            None if threat is None else measured(federation, weights, *threat.data.test(*federation.measuring)),
            Rate(k=len(good & gone), n=len(good)),
            Rate(k=len(bad & gone), n=len(bad)),
        )


def lifespan(outcomes: Sequence[Outcome], last: int) -> int:
    """How many rounds after `last`, the attack's last one, its success stayed at `HELD` or above."""
    after = [outcome.success for outcome in outcomes if outcome.round.number >= last]
    alive = [rate is not None and (rate.value or 0.0) >= HELD for rate in after]
    return max(0, (alive.index(False) if False in alive else len(alive)) - 1)


def _clients(federation: Federation, threat: Threat | None) -> dict[str, Client]:
    """All clients; the attackers are honest outside the rounds of their attack."""
    band = None if threat is None else _Band(federation, threat)

    def answer(name: str, model: Tensors, number: int) -> Reply:
        weights = federation.network.flat(model)
        if band is not None and name in federation.attackers:
            update = band.update(name, weights, number)
        else:
            update = _honest(federation, name, weights, number)
        return Reply(name, federation.network.tensors(weights + update), len(federation.shard(name)[1]), number)

    return {name: partial(answer, name) for name in federation.names}


def measured(federation: Federation, weights: Array, x: Array, y: Labels) -> Rate:
    """How often the model answers `y`."""
    answers = federation.network.probabilities(weights, x.reshape(len(x), -1)).argmax(1)
    return Rate(k=int((answers == y).sum()), n=len(y))
