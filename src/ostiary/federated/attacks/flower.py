"""A red team for any Flower app: a mod and a wrapper of its data make attackers of honest clients, by configuration.

    app = ClientApp(mods=[red_team])
    load_data = poisoned(load_data)

    [tool.flwr.app.config.red-team]
    attackers = "0,3"            # partition ids; the server's app gets them too, and should not read them
    data = "badnets"             # a client-attack that poisons data, or none
    updates = "neurotoxin,pgd"   # client-attacks on the training, in this order, or none
    first = 1
    last = 100
    share = 0.5                  # of the samples are poisoned
    pgd.room = 1.5               # a parameter of a method

An app that names no attackers runs as it is. The app must train with an optimiser of torch, of which each step is
changed; what it trains must be what it sends. Attackers know their own honest updates alone, not each other's.
"""

import copy
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, Self, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.data import DataLoader, Dataset, TensorDataset

from ostiary.core.catalog import make
from ostiary.core.errors import ConfigError, DataError, MissingExtra, ModelError
from ostiary.federated.attacks.sight import DataPoison, Hooks, Sight, UpdateAttack, joined
from ostiary.federated.flower import arrays_of, statistics_of, tensors_of
from ostiary.federated.layout import Layout
from ostiary.federated.verdict import Array

try:
    from flwr.app import Context, Message
except ImportError as error:
    raise MissingExtra("this needs Flower", hint="pip install 'ostiary[federated]'") from error

PREFIX = "red-team."
IMAGE = 2
"""Axes of an image, at least."""
STATE = "ostiary-red-team"
"""Where an attacker keeps the last global model it saw, in the state of its own node."""

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True, slots=True)
class Attack:
    """What a configuration says: who attacks (partition ids), by what, from which round to which.

    `share` of an attacker's samples go through `poison`, where there is one.
    """

    attackers: tuple[int, ...]
    poison: DataPoison | None
    updates: tuple[UpdateAttack, ...]
    first: int = 1
    last: int = 10**9
    share: float = 0.5


@dataclass(frozen=True, slots=True)
class _Now:
    """The attack that is going on in this client."""

    poison: DataPoison | None
    share: float
    member: int
    number: int


_NOW: ContextVar[_Now | None] = ContextVar("ostiary_red_team", default=None)


def attack_of(config: Mapping[str, Any]) -> Attack | None:
    """What a run's configuration says of an attack; None where nobody attacks.

    Raises ConfigError for an unknown key or method, a value that is none, and an attack that would change nothing.
    """
    told = {name.removeprefix(PREFIX): value for name, value in config.items() if name.startswith(PREFIX)}
    attackers = _numbers(str(told.pop("attackers", "")))
    data, updates = _names(told.pop("data", "")), _names(told.pop("updates", ""))
    kinds = {"first": int, "last": int, "share": float}
    try:
        numbers = {name: kind(told.pop(name)) for name, kind in kinds.items() if name in told}
    except ValueError as error:
        raise ConfigError(f"first, last and share of the red team are numbers: {error}") from error
    params: dict[str, dict[str, Any]] = {}
    for name, value in told.items():
        method, _, parameter = name.rpartition(".")
        if method not in (*data, *updates):
            raise ConfigError(f"'{PREFIX}{name}' says nothing", hint="attackers, data, updates, first, last, share")
        params.setdefault(method, {})[parameter] = value
    made = [make("client-attack", name, params.get(name)) for name in (*data, *updates)]
    if len(data) > 1 or any(hasattr(one, "poison") is not (i < len(data)) for i, one in enumerate(made)):
        raise ConfigError("the red team takes one poison as data, and attacks on training as updates")
    if attackers and not made:
        raise ConfigError("the red team's attackers do nothing", hint="name data or updates, too")
    attack = Attack(attackers=attackers, poison=made[0] if data else None, updates=tuple(made[len(data) :]), **numbers)
    if min(attackers, default=0) < 0 or not 1 <= attack.first <= attack.last or not 0 < attack.share <= 1:
        raise ConfigError(
            "the red team's numbers mean nothing",
            hint="partition ids of 0 or more, first of 1 or more and no later than last, a share above 0 up to 1",
        )
    return attack if attackers else None


def red_team(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
    """The mod: an attacker's call of the app is changed, any other is handed on.

    Raises ModelError where the app sends other tensors than it trains.
    """
    attack = attack_of(context.run_config)
    part = int(context.node_config.get("partition-id", -1))
    if attack is not None:
        _in_range(attack, context.node_config.get("num-partitions"))
    if attack is None or part not in attack.attackers or message.metadata.message_type.split(".")[0] != "train":
        return call_next(message, context)
    model = tensors_of(next(iter(message.content.array_records.values())))
    layout = Layout.of(model, statistics_of(model))
    weights = layout.flat(model)
    before = layout.flat(tensors_of(context.state[STATE])) if STATE in context.state else None
    context.state[STATE] = arrays_of(model)
    number = _round(message)
    if not attack.first <= number <= attack.last:
        return call_next(message, context)

    def honestly(steps: "_Steps") -> Message:
        with steps:
            return call_next(copy.deepcopy(message), copy.deepcopy(context))

    def own_gradient() -> Array:
        steps = _Steps(layout, weights, still=True)
        honestly(steps)
        return steps.gradient / max(steps.taken, 1)

    hooks = Hooks()
    if attack.updates:
        sent = _flat(honestly(_Steps(layout, weights)), layout)
        observed = None if before is None else weights - before
        sight = Sight(weights, observed, own_gradient, float(np.linalg.norm(sent - weights)))
        hooks = joined([one.arm(sight) for one in attack.updates])
    now = _NOW.set(_Now(attack.poison, attack.share, sorted(attack.attackers).index(part), number))
    try:
        with _Steps(layout, weights, hooks):
            reply = call_next(message, context)
    finally:
        _NOW.reset(now)
    return reply if hooks.finish is None else _finished(reply, layout, weights, hooks.finish)


def _in_range(attack: Attack, partitions: Any) -> None:
    """Raises ConfigError for an attacker that no node is, where the nodes know how many they are."""
    if partitions is not None and max(attack.attackers) >= int(partitions):
        raise ConfigError(
            f"partition {max(attack.attackers)} is to attack, of {partitions}", hint=f"0 to {int(partitions) - 1}"
        )


def poisoned(load: Callable[P, R]) -> Callable[P, R]:
    """Wrap what loads a client's samples: attackers get poisoned ones while they attack, everybody else their own.

    `load` gives images [n, h, w] or [n, c, h, w] of floating point with their labels, as arrays or tensors, or a torch
    Dataset or DataLoader whose samples are such pairs, or dictionaries of one image and one label; of several of these
    in a tuple, as for training and for tests, the first is poisoned. Stamps are as bright as 1. Raises DataError for
    anything else, while it attacks.
    """

    @wraps(load)
    def loaded(*args: P.args, **kwargs: P.kwargs) -> R:
        data, now = load(*args, **kwargs), _NOW.get()
        return data if now is None or now.poison is None else _poisoned(data, now, now.poison)

    return loaded


class _Steps:
    """While in it, every step of every optimiser is an attacker's: its gradient, then its weights, go through hooks.

    `still` undoes each step, so that `gradient` is the sum over the `taken` steps at the weights it began with.
    """

    def __init__(self, layout: Layout, weights: Array, hooks: Hooks | None = None, *, still: bool = False) -> None:
        self.gradient, self.taken = np.zeros_like(weights), 0
        self._layout, self._weights, self._hooks, self._still = layout, weights, hooks or Hooks(), still
        self._parts: dict[int, list[Tensor]] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        self._handles = [
            register_optimizer_step_pre_hook(self._before),
            register_optimizer_step_post_hook(self._after),
        ]
        return self

    def __exit__(self, *raised: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        parts = self._matched(optimizer)
        grads = [torch.zeros_like(part) if part.grad is None else part.grad for part in parts]
        gradient = _joined(grads)
        self.gradient, self.taken = self.gradient + gradient, self.taken + 1
        if self._hooks.change is not None:
            self._write(self._hooks.change(_joined(parts), gradient), parts, grads=True)

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        parts = self._matched(optimizer)
        if self._still:
            self._write(self._weights, parts)
        elif self._hooks.project is not None:
            self._write(self._hooks.project(_joined(parts)), parts)

    def _matched(self, optimizer: Optimizer) -> list[Tensor]:
        """The optimiser's parameters in the layout's order; before its first step they are the global model's."""
        if id(optimizer) not in self._parts:
            left = [part for group in optimizer.param_groups for part in group["params"]]
            found = []
            for tensor in self._layout.tensors(self._weights).values():
                fit = [i for i, part in enumerate(left) if np.array_equal(part.detach().cpu().numpy(), tensor)]
                if not fit:
                    raise ModelError(
                        "the app's optimiser does not begin at the global model, or not all of it is trained",
                        hint="load the global model before training, and name frozen tensors nowhere",
                    )
                found.append(left.pop(fit[0]))
            self._parts[id(optimizer)] = found
        return self._parts[id(optimizer)]

    def _write(self, vector: Array, parts: list[Tensor], *, grads: bool = False) -> None:
        start = 0
        for part in parts:
            piece = torch.as_tensor(vector[start : (start := start + part.numel())], dtype=part.dtype).view_as(part)
            if grads:
                part.grad = piece.to(part.device)
            else:
                part.data.copy_(piece)


def _joined(parts: list[Tensor]) -> Array:
    return np.concatenate([part.detach().cpu().numpy().astype(np.float64).ravel() for part in parts])


def _flat(reply: Message, layout: Layout) -> Array:
    return layout.flat(tensors_of(next(iter(reply.content.array_records.values()))))


def _finished(reply: Message, layout: Layout, weights: Array, finish: Callable[[Array], Array]) -> Message:
    """The reply with its update changed at the end; its statistics are as they were trained."""
    name, record = next(iter(reply.content.array_records.items()))
    changed = layout.tensors(weights + finish(_flat(reply, layout) - weights))
    reply.content[name] = arrays_of({**tensors_of(record), **changed})
    return reply


def _poisoned(data: Any, now: _Now, poison: DataPoison) -> Any:
    if isinstance(data, DataLoader):
        return DataLoader(_poisoned(data.dataset, now, poison), batch_size=data.batch_size, shuffle=True)
    if isinstance(data, tuple) and data and all(isinstance(part, DataLoader | Dataset) for part in data):
        return (_poisoned(data[0], now, poison), *data[1:])
    if isinstance(data, Dataset) or hasattr(data, "__getitems__"):  # data sets of Hugging Face are no torch Dataset
        return _poisoned_items([data[i] for i in range(len(data))], now, poison)
    try:
        given: tuple[np.ndarray, ...] = tuple(
            part.numpy() if isinstance(part, Tensor) else np.asarray(part) for part in data
        )
        x, y = given
    except (TypeError, ValueError) as error:
        raise DataError("what the app loads is no pair of images and labels", hint="wrap what gives (x, y)") from error
    if x.ndim not in (3, 4) or y.shape != x.shape[:1] or x.dtype.kind != "f":
        raise DataError(
            f"images {x.shape} of {x.dtype} and labels {y.shape} cannot be stamped",
            hint="[n, h, w] or [n, c, h, w] of floating point, scaled as the model takes them",
        )
    rng = np.random.default_rng([now.number, now.member])
    chosen = rng.permutation(len(y))[: max(1, round(now.share * len(y)))]
    rest = np.setdiff1d(np.arange(len(y)), chosen)
    planes = x[chosen].astype(np.float64)[:, None] if x.ndim == 3 else x[chosen].astype(np.float64)
    stamped = [
        poison.poison(planes[:, k], y[chosen].astype(np.int64), member=now.member) for k in range(planes.shape[1])
    ]
    bad = np.stack([one for one, _ in stamped], axis=1)
    bad_x = (bad[:, 0] if x.ndim == 3 else bad).astype(x.dtype)
    x, y = np.concatenate([x[rest], bad_x]), np.concatenate([y[rest], stamped[0][1].astype(y.dtype)])
    return (torch.from_numpy(x), torch.from_numpy(y)) if isinstance(data[0], Tensor) else (x, y)


def _poisoned_items(items: list[Any], now: _Now, poison: DataPoison) -> Dataset[Any]:
    """Poisoned samples of a data set, each in the form it had."""
    names = _keys(items[0]) if items and isinstance(items[0], Mapping) else None
    image, label = names or (0, 1)
    try:
        images = torch.stack([torch.as_tensor(item[image]) for item in items])
        labels = torch.tensor([int(item[label]) for item in items])
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError) as error:
        raise DataError(
            "the samples that the app loads are no pairs of an image and its label",
            hint="turn images into tensors of one shape before the data are wrapped",
        ) from error
    pairs = TensorDataset(*_poisoned((images, labels), now, poison))
    return pairs if names is None else _Named(pairs, names)


def _keys(item: Mapping[str, Any]) -> tuple[str, str]:
    """The names of the image and of the label in a sample: the one array of two and more axes, the one number."""
    sizes = {name: np.ndim(value) for name, value in item.items() if not isinstance(value, str)}
    images, labels = [n for n, axes in sizes.items() if axes >= IMAGE], [n for n, axes in sizes.items() if not axes]
    if len(images) != 1 or len(labels) != 1:
        raise DataError(f"a sample of {sorted(item)} has no one image and one label", hint="leave other columns out")
    return images[0], labels[0]


class _Named(Dataset[dict[str, Any]]):
    """Pairs as dictionaries."""

    def __init__(self, pairs: TensorDataset, names: tuple[str, str]) -> None:
        self.pairs, self.names = pairs, names

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return dict(zip(self.names, self.pairs[row], strict=True))


def _round(message: Message) -> int:
    """The number of the round, which Flower's strategies send along."""
    for record in message.content.config_records.values():
        if "server-round" in record:
            return int(record["server-round"])
    return 1


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ConfigError(f"'{PREFIX}attackers' is '{text}'", hint='partition ids, as in "0,3"') from error


def _names(text: Any) -> tuple[str, ...]:
    return tuple(part.strip() for part in str(text).split(",") if part.strip())
