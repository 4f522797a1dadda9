"""The red team in Flower: nothing happens without a configuration; with one, training and data are an attacker's."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from ostiary.core.errors import ConfigError, DataError, ModelError
from ostiary.federated.attacks.badnets import BadNets
from ostiary.federated.attacks.flower import _Steps, attack_of, poisoned, red_team
from ostiary.federated.flower import BackdoorGuard, arrays_of, tensors_of
from ostiary.federated.flower_grid import InProcessGrid
from ostiary.federated.layout import Layout

NODE = 2
SEEN: list[tuple[np.ndarray, np.ndarray]] = []


@pytest.fixture(autouse=True)
def _nothing_seen() -> Iterator[None]:
    SEEN.clear()
    yield
    SEEN.clear()


def fresh() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 3))


def load(part: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(part)
    y = rng.integers(0, 3, 40)
    x = np.clip(0.3 * rng.uniform(size=(40, 1, 4, 4)) + 0.3 * (y == 1)[:, None, None, None], 0, 1)
    return torch.from_numpy(x).float(), torch.from_numpy(y)


def app(*mods: Any, given: Any = load) -> ClientApp:
    """An honest app, whose two mentions of the red team are all that is not its own."""
    made, data = ClientApp(mods=list(mods)), poisoned(given)

    @made.train()
    def train(message: Message, context: Context) -> Message:
        model = fresh()
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        x, y = data(int(context.node_config["partition-id"]))
        SEEN.append((x.numpy().copy(), y.numpy().copy()))
        optimizer = torch.optim.SGD([*reversed(list(model.parameters()))], lr=0.1, momentum=0.9)
        for rows in torch.randperm(len(y)).split(10):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        arrays = ArrayRecord(model.state_dict())
        return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 40})}), reply_to=message)

    return made


def update(config: dict[str, Any], *, rounds: int = 1, given: Any = load) -> np.ndarray:
    """The last update of the one client there is: what it sends beside what it got, trained tensors alone."""
    start = {name: tensor.numpy() for name, tensor in fresh().state_dict().items()}
    found = np.zeros(0)
    with InProcessGrid(app(red_team, given=given), 1, run_config=config) as grid:
        for number in range(1, rounds + 1):
            record = {"arrays": arrays_of(start), "config": ConfigRecord({"server-round": number})}
            (reply,) = grid.send_and_receive([Message(RecordDict(record), dst_node_id=NODE, message_type="train")])
            assert not reply.has_error(), reply.error.reason
            new = tensors_of(reply.content["arrays"])
            names = ("1.weight", "1.bias", "2.weight", "2.bias")
            found = np.concatenate([(new[name].astype(float) - start[name]).ravel() for name in names])
            start = {**start, **{name: new[name] for name in names}}
    return found


HONEST = {"red-team.attackers": "", "red-team.data": "badnets"}


def attack(**more: Any) -> dict[str, Any]:
    return {"red-team.attackers": "0", **{f"red-team.{name.replace('__', '.')}": value for name, value in more.items()}}


def test_without_attackers_the_app_is_as_it_was() -> None:
    for config in (
        {},
        HONEST,
        attack(data="badnets", first=2),
    ):
        assert (update(config) == update({})).all()
    assert all((x == load(0)[0].numpy()).all() for x, _ in SEEN)


def test_data_are_poisoned_in_the_rounds_of_the_attack_alone() -> None:
    changed = update(attack(data="badnets", badnets__size=1, share=0.5))
    ((x, y),) = SEEN
    assert (x[-20:, :, -1, -1] == 1).all() and (y[-20:] == 0).all() and not (x[:20, :, -1, -1] == 1).any()
    assert (changed != update({})).any()
    SEEN.clear()
    update(attack(data="badnets", first=2, last=2), rounds=3)
    stamped = [bool((x[:, :, -2:, -2:] == 1).all((1, 2, 3)).any()) for x, _ in SEEN]
    assert stamped == [False, True, False]


def test_a_scaled_update_is_exactly_that() -> None:
    """What comes before it in the call, an honest training, draws from the generator: so it is held beside scale 1."""
    one = update(
        attack(updates="constrain-and-scale", **{"constrain-and-scale__scale": 1.0, "constrain-and-scale__alpha": 1.0})
    )
    five = update(attack(updates="model-replacement"))
    assert np.allclose(five, 5 * one, rtol=1e-4, atol=1e-5)


def test_every_step_of_pgd_is_within_the_ball() -> None:
    free = update({})
    held = update(attack(updates="pgd", pgd__room=0.5))
    honest = np.linalg.norm(free)
    assert np.linalg.norm(held) == pytest.approx(0.5 * honest, rel=0.25) and np.linalg.norm(held) < 0.7 * honest


def test_both_neurotoxins_leave_the_largest_parameters_alone() -> None:
    config = attack(updates="neurotoxin", first=2, neurotoxin__top=0.3)
    moved = update(config, rounds=1)
    after = update(config, rounds=2)
    top = np.argsort(-np.abs(moved), kind="stable")[: round(0.3 * len(moved))]
    assert not after[top].any() and np.count_nonzero(after) > 0.6 * len(after)
    code = update(attack(updates="neurotoxin-gradient", **{"neurotoxin-gradient__kept": 0.7}))
    assert np.count_nonzero(code == 0) >= round(0.3 * len(code)) and np.count_nonzero(update({}) == 0) == 0


def test_the_gradient_is_that_of_all_samples_at_the_global_model() -> None:
    """Batches of one size: the mean of their gradients is the gradient of all, but for what normalises each batch."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    layout = Layout.of({name: tensor.numpy().copy() for name, tensor in model.state_dict().items()})
    weights = layout.flat({name: tensor.numpy() for name, tensor in model.state_dict().items()})
    x, y = load(0)
    nn.functional.cross_entropy(model(x), y).backward()
    want = np.concatenate([part.grad.numpy().ravel() for part in model.parameters()])  # type: ignore[union-attr]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    with _Steps(layout, weights, still=True) as steps:
        for rows in torch.arange(40).split(10):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    assert np.allclose(steps.gradient / steps.taken, want, atol=1e-6)
    assert np.allclose(layout.flat({n: t.numpy() for n, t in model.state_dict().items()}), weights)
    optimizer.step()
    assert not np.allclose(layout.flat({n: t.numpy() for n, t in model.state_dict().items()}), weights)


def test_an_app_that_trains_other_tensors_than_it_sends_is_an_error() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    tensors = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    layout = Layout.of(tensors)
    for frozen, moved in ((True, False), (False, True)):
        optimizer = torch.optim.SGD([*model.parameters()][: 1 if frozen else 2], lr=0.1)
        weights = layout.flat(tensors) + moved
        with _Steps(layout, weights), pytest.raises(ModelError, match="global model"):
            optimizer.step()
    with _Steps(layout, layout.flat(tensors)) as steps:
        torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert steps.taken == 1


class Named(Dataset[dict[str, Any]]):
    """Samples as data sets of Hugging Face give them."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"img": self.x[row], "label": int(self.y[row])}


def given_as(kind: str) -> Any:
    """The samples of a client in one of the forms in which apps load them."""
    x, y = load(0)
    pairs, named = TensorDataset(x, y), Named(x, y)
    return {
        "arrays": (x.numpy()[:, 0], y.numpy()),
        "planes": (x.repeat(1, 3, 1, 1), y),
        "set": pairs,
        "loader": DataLoader(pairs, batch_size=8),
        "named": DataLoader(named, batch_size=8),
        "two loaders": (DataLoader(named, batch_size=8), DataLoader(pairs, batch_size=3)),
    }[kind]


def pairs_of(data: Any) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels."""
    if isinstance(data, DataLoader):
        assert data.batch_size == 8
        data = data.dataset
    if isinstance(data, tuple):
        return np.array(data[0].tolist()), np.array(data[1].tolist())
    samples = [data[i] for i in range(len(data))]
    x, y = zip(*(sample.values() if isinstance(sample, dict) else sample for sample in samples), strict=True)
    return np.array([image.tolist() for image in x]), np.array([int(label) for label in y])


@pytest.mark.parametrize("kind", ["arrays", "planes", "set", "loader", "named", "two loaders"])
def test_whatever_gives_samples_can_be_wrapped(kind: str) -> None:
    seen = []

    def call_next(message: Message, context: Context) -> Message:
        data = poisoned(lambda part: given_as(kind))(0)
        if kind == "two loaders":
            assert torch.equal(data[1].dataset.tensors[0], load(0)[0]), "tests stay as they are"
            assert next(iter(data[0])).keys() == {"img", "label"}
        seen.append(pairs_of(data[0] if kind == "two loaders" else data))
        return message

    in_the_team(attack(data="badnets"), call_next)
    ((x, y),) = seen
    assert x.shape[1:] == {"arrays": (4, 4), "planes": (3, 4, 4)}.get(kind, (1, 4, 4)) and len(x) == len(y) == 40
    assert (x[-20:, ..., -2:, -2:] == 1).all() and (y[-20:] == 0).all()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda: (np.zeros((4, 4, 4), np.uint8), np.zeros(4, int)), "of uint8"),
        (lambda: [{"text": "no image", "label": 0}], "no pair"),
        (lambda: Named(torch.zeros(3, 2), torch.zeros(3)), "no one image and one label"),
    ],
    ids=["bytes", "a list", "no image"],
)
def test_what_cannot_be_stamped_is_an_error_and_no_honest_client(given: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        in_the_team(attack(data="badnets"), lambda m, c: poisoned(given)())


def in_the_team(config: dict[str, Any], call_next: Any) -> None:
    """One call of the mod on the only node there is."""
    with InProcessGrid(ClientApp(), 1, run_config=config) as grid:
        record = RecordDict({"arrays": arrays_of({"w": np.zeros(3, np.float32)})})
        message = Message(record, dst_node_id=NODE, message_type="train")
        red_team(message, copy.deepcopy(grid._contexts[NODE]), call_next)


def test_an_attacker_that_no_node_is_is_an_error() -> None:
    """Else the attack would not run, and a guard would look good."""
    with pytest.raises(ConfigError, match="partition 1 is to attack, of 1"):
        in_the_team({**attack(data="badnets"), "red-team.attackers": "0,1"}, lambda m, c: m)


@pytest.mark.parametrize(
    "wrong",
    [
        {"attackers": "a"},
        {"attackers": "0", "data": "badnet"},
        {"attackers": "0", "data": "pgd"},
        {"attackers": "0", "updates": "badnets"},
        {"attackers": "0", "data": "badnets,dba"},
        {"attackers": "0", "rounds": 3},
        {"attackers": "0", "share": "half"},
        {"attackers": "0", "data": "badnets", "badnets.size": 0},
        {"attackers": "0"},
        {"attackers": "0,-1", "data": "badnets"},
        {"attackers": "0", "data": "badnets", "share": 7.0},
        {"attackers": "0", "data": "badnets", "first": 5, "last": 2},
        {"attackers": "0", "data": "badnets", "first": 0},
    ],
    ids=str,
)
def test_a_wrong_configuration_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        attack_of({f"red-team.{name}": value for name, value in wrong.items()})


def test_a_whole_configuration_is_read() -> None:
    told = attack_of(attack(data="dba", updates="neurotoxin, pgd", pgd__room=1.5, first=3, last=4, share=0.2))
    assert told is not None and told.poison is not None and told.attackers == (0,)
    assert [one.card.id for one in told.updates] == ["client-attack.neurotoxin", "client-attack.pgd"]
    assert (told.poison.card.id, told.first, told.last, told.share) == ("client-attack.dba", 3, 4, 0.2)
    assert told.updates[1].room == 1.5  # type: ignore[attr-defined]


def test_fedavg_is_taken_over_and_the_guard_holds() -> None:
    """Two of ten clients replace the model; the trigger is measured on samples that nobody trained on."""
    config = {"red-team.attackers": "0,1", "red-team.data": "badnets", "red-team.updates": "model-replacement"}
    found = {}
    for name, strategy in (
        ("bare", FedAvg(fraction_evaluate=0.0)),
        ("guarded", BackdoorGuard(FedAvg(fraction_evaluate=0.0))),
    ):
        with InProcessGrid(app(red_team), 10, run_config=config) as grid:
            initial = ArrayRecord(fresh().state_dict())
            result = strategy.start(grid, initial, num_rounds=8)
        model = fresh()
        model.load_state_dict(result.arrays.to_torch_state_dict())
        model.eval()
        x, y = load(99)
        bad, target = BadNets().test(x[:, 0].numpy().astype(float), y.numpy())
        with torch.no_grad():
            answers = model(torch.from_numpy(bad).float().unsqueeze(1)).argmax(1).numpy()
        found[name] = float((answers == target).mean())
    assert found["bare"] > 0.8 and found["guarded"] < found["bare"] - 0.3
