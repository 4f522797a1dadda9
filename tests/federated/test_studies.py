"""A study as a file says it: read strictly, run the same twice, and what it leaves can be checked and scanned."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ostiary.bench.federation import Study, run_federation, samples_of
from ostiary.bench.federation_settings import Settings, read_settings
from ostiary.core.errors import ConfigError, DataError, FormatError
from ostiary.core.records import Rate, RoundsEvidence
from ostiary.data import digits
from ostiary.federated.admission import Reply
from ostiary.federated.attacks.study import Federation, Outcome, lifespan
from ostiary.federated.record import read_rounds, tensors_digest
from ostiary.federated.rounds import Round
from ostiary.federated.stamps import stamped
from ostiary.federated.verdict import Reason
from ostiary.federated.zoo_network import ZooNetwork
from ostiary.models.load import load_model
from ostiary.provenance.keys import new_key, read_private
from ostiary.provenance.refusal import Refused
from ostiary.provenance.trust import read_trust

SMALL: dict[str, Any] = {
    "data": "digits",
    "width": 4,
    "rounds": 3,
    "samples": 200,
    "test": 120,
    "clients": {"number": 6, "epochs": 1},
    "server": {"rule": "norm-clip", "trusted": 20, "admission": {"longest": 2.0}},
    "threat": {
        "number": 1,
        "updates": ["model-replacement"],
        "set": {"model-replacement": {"scale": 50.0}},
        "first": 2,
        "last": 2,
        "epochs": 1,
    },
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A small federation whose attacker sends an update far too long in round 2, signed."""
    folder = tmp_path_factory.mktemp("federated")
    new_key(folder / "server")
    signer = read_private(folder / "server.key")
    record = run_federation(Settings(**SMALL), "digits", folder / "out", signers=[signer], keep=1)
    return folder, record


def evidence_of(record: Any) -> RoundsEvidence:
    found = record.results[0].evidence
    assert isinstance(found, RoundsEvidence), record.results[0].reason
    return found


def test_what_it_writes_is_what_it_says(ran: tuple[Path, Any]) -> None:
    folder, record = ran
    found = evidence_of(record)
    attacker = found.attackers[0]
    second = {one.client: one for one in found.rounds[1].clients}
    assert not second[attacker].accepted and second[attacker].code == "OS505"
    assert sum(not one.accepted for one in second.values()) == 1
    assert found.rates["attackers refused"] == Rate(k=1, n=1)
    assert found.rates["honest clients refused"] == Rate(k=0, n=5)
    refused = list((folder / "out" / "refused").iterdir())
    assert [file.name for file in refused] == [f"round-002-{attacker}.safetensors"]
    for file in (refused[0], folder / "out" / "global.safetensors"):
        assert load_model(file).arch == "small-cnn-gn"
    assert record.digests["model"] == load_model(folder / "out" / "global.safetensors").digest


def test_signed_rounds_follow_one_another(ran: tuple[Path, Any]) -> None:
    folder, record = ran
    model = load_model(folder / "out" / "global.safetensors")
    last = {name: part.numpy() for name, part in model.module.state_dict().items()}
    rounds = read_rounds(folder / "out" / "rounds", read_trust(folder / "server.pub"), last)
    assert [one.round for one in rounds] == [1, 2, 3]
    assert rounds[1].clients == evidence_of(record).rounds[1].clients
    assert rounds[0].rule == "aggregate.norm-clip"


@pytest.mark.parametrize(
    ("harm", "code"),
    [("missing", "OS540"), ("swapped", "OS540"), ("other model", "OS541"), ("stranger", "OS725"), ("edited", "OS724")],
)
def test_what_is_wrong_with_rounds_is_refused(ran: tuple[Path, Any], tmp_path: Path, harm: str, code: str) -> None:
    folder, _ = ran
    rounds = tmp_path / "rounds"
    rounds.mkdir()
    for file in (folder / "out" / "rounds").iterdir():
        (rounds / file.name).write_bytes(file.read_bytes())
    trust, last = read_trust(folder / "server.pub"), None
    second = rounds / "round-002.json"
    if harm == "missing":
        second.unlink()
    elif harm == "swapped":
        first = rounds / "round-001.json"
        kept = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(kept)
    elif harm == "other model":
        last = {"w": np.zeros(3, np.float32)}
    elif harm == "stranger":
        new_key(tmp_path / "other")
        trust = read_trust(tmp_path / "other.pub")
    else:
        envelope = json.loads(second.read_text())
        other = json.loads((rounds / "round-001.json").read_text())
        second.write_text(json.dumps(envelope | {"payload": other["payload"]}))
    with pytest.raises(Refused) as caught:
        read_rounds(rounds, trust, last)
    assert caught.value.reasons[0].code == code


def test_a_model_changed_between_rounds_breaks_the_chain(ran: tuple[Path, Any], tmp_path: Path) -> None:
    """The rounds of another federation, signed by the same server, do not fit in."""
    folder, _ = ran
    settings = Settings(**SMALL | {"threat": None, "rounds": 2})
    signer = read_private(folder / "server.key")
    from ostiary.core.session import Options

    run_federation(settings, "digits", tmp_path / "out", signers=[signer], options=Options(seed=1))
    rounds = tmp_path / "out" / "rounds"
    (rounds / "round-001.json").write_bytes((folder / "out" / "rounds" / "round-001.json").read_bytes())
    with pytest.raises(Refused, match="OS541"):
        read_rounds(rounds, read_trust(folder / "server.pub"))


def test_no_rounds_is_no_pass(tmp_path: Path, ran: tuple[Path, Any]) -> None:
    with pytest.raises(FormatError, match="no rounds"):
        read_rounds(tmp_path, read_trust(ran[0] / "server.pub"))


def test_the_same_seed_gives_the_same_bytes(ran: tuple[Path, Any], tmp_path: Path) -> None:
    _, record = ran
    again = run_federation(Settings(**SMALL), "digits", tmp_path / "out")
    assert evidence_of(again) == evidence_of(record)
    assert again.digests == record.digests


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"roundz": 3}, "unknown key 'roundz'"),
        ({"clients": {"nummber": 3}}, "unknown key 'clients.nummber'"),
        ({"server": {"admission": {"longst": 3}}}, "unknown key 'server.admission.longst'"),
        ({"server": {"rule": "krumm"}}, "no aggregate method"),
        ({"server": {"rule": "guard", "set": {"trimm": 0.1}}}, "trimm"),
        ({"server": {"trusted": 120}}, "none measure"),
        ({"threat": {"poison": "pgd"}}, "poisons no data"),
        ({"threat": {"updates": ["badnets"], "set": {}}}, "changes no training"),
        ({"threat": {"set": {"dba": {}}}}, "not named"),
        ({"threat": {"number": 6}}, "6 of 6 clients attack"),
        ({"threat": {"last": 9}}, "round 2 to 9 of 3"),
        ({"rounds": 0}, "greater than or equal to 1"),
    ],
)
def test_a_file_that_means_nothing_is_said_so(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    value = {
        key: part | change.pop(key, {}) if isinstance(part, dict) else part for key, part in SMALL.items()
    } | change
    file = tmp_path / "study.toml"
    file.write_text(toml(value))
    with pytest.raises(ConfigError) as caught:
        read_settings(file)
    assert words in str(caught.value)
    assert caught.value.hint


def toml(value: dict[str, Any], name: str = "") -> str:
    """Plain values first, then tables."""
    lines = [f"[{name}]"] if name else []
    lines += [f"{key} = {json.dumps(part)}" for key, part in value.items() if not isinstance(part, dict)]
    tables = [toml(part, f"{name}.{key}".lstrip(".")) for key, part in value.items() if isinstance(part, dict)]
    return "\n".join([*lines, *tables])


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(toml(SMALL))
    assert read_settings(file) == Settings(**SMALL)


@pytest.mark.parametrize("data", [b"rounds = ", b"\xff", b"#" * (2**20 + 1)])
def test_what_is_no_toml_is_said_so(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "study.toml"
    file.write_bytes(data)
    with pytest.raises(FormatError, match=r"study\.toml"):
        read_settings(file)


@pytest.mark.parametrize(
    ("poison", "params", "words"),
    [
        ("badnets", {"target": 99}, r"threat\.set\.badnets\.target is 99, the data have 10 classes"),
        ("edge-case", {"source": 10}, r"threat\.set\.edge-case\.source is 10"),
    ],
)
def test_an_attack_on_classes_that_are_not_there_is_refused_before_any_work(
    tmp_path: Path, poison: str, params: dict[str, int], words: str
) -> None:
    threat = {"number": 1, "poison": poison, "set": {poison: params}, "first": 1, "last": 1}
    with pytest.raises(ConfigError, match=words):
        run_federation(Settings(**SMALL | {"threat": threat}), "digits", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_study_of_too_few_clients_measured_nothing_and_says_so(tmp_path: Path) -> None:
    few = SMALL | {"threat": None, "server": {"rule": "guard"}, "clients": {"number": 3, "epochs": 1}, "rounds": 2}
    record = run_federation(Settings(**few), "digits", tmp_path / "out")
    assert (record.results[0].status, record.results[0].evidence) == ("skipped", None)
    assert "no round was aggregated" in (record.results[0].reason or "")
    assert {caution.code for caution in record.results[0].cautions} == {"OS927"}


def test_too_few_samples_for_the_clients() -> None:
    with pytest.raises(DataError, match="50 samples for 6 clients"):
        samples_of(Settings(**SMALL | {"samples": 50}), "digits", 0)


def test_what_is_kept_back_comes_from_the_test_part_where_there_is_one(tmp_path: Path) -> None:
    _, samples = samples_of(Settings(**SMALL), "digits", 0)
    assert samples.kept == 120 and len(samples.labels) == 320
    one = digits()
    np.savez(tmp_path / "one.npz", x=one.pixels(range(len(one))).numpy(), y=one.labels.numpy())
    _, alone = samples_of(Settings(**SMALL), str(tmp_path / "one.npz"), 0)
    assert alone.kept is None and len(alone.labels) == 200
    federation = Federation(seed=0, samples=alone, test=120, clients=4, root_size=20)
    shared = {row.tobytes() for name in federation.names for row in federation.shard(name)[0]}
    assert not shared & {row.tobytes() for row in federation.measuring[0]}
    assert len(federation.measuring[1]) == 100 and len(federation.root[1]) == 20


def test_a_zoo_network_is_one_vector() -> None:
    network = ZooNetwork("small-cnn-gn", 3, (2, 8, 8), 4)
    weights = network.fresh(np.random.default_rng(0))
    assert np.array_equal(network.flat(network.tensors(weights)), weights)
    x = np.random.default_rng(1).random((5, network.inputs))
    y = np.array([0, 1, 2, 0, 1])

    def loss(at: np.ndarray) -> float:
        return float(-np.log(network.probabilities(at, x)[np.arange(5), y]).mean())

    way = np.random.default_rng(2).standard_normal(len(weights))
    way /= np.linalg.norm(way)
    slope = (loss(weights + 0.01 * way) - loss(weights - 0.01 * way)) / 0.02
    assert network.gradient(weights, x, y) @ way == pytest.approx(slope, rel=0.02, abs=1e-4)
    model = network.classifier(weights, ("a", "b", "c"), "m")
    images = torch.tensor(x, dtype=torch.float32).view(5, 8, 8, 2).permute(0, 3, 1, 2)
    assert np.allclose(model.logits(images).softmax(1).detach().numpy(), network.probabilities(weights, x), atol=1e-5)


def test_statistics_of_the_data_are_no_weights() -> None:
    with pytest.raises(ConfigError, match="keeps statistics"):
        ZooNetwork("small-cnn", 3, (1, 8, 8), 4)


@pytest.mark.parametrize("shape", [(6, 8, 8), (6, 8, 8, 3), (6, 1, 1)])
def test_stamped_samples_keep_their_labels(shape: tuple[int, ...]) -> None:
    x, y = np.full(shape, 0.5), np.arange(6)
    images, labels = stamped(x, y, np.random.default_rng(0), copies=3)
    assert np.array_equal(images[:6], x) and labels.tolist() == [*range(6)] * 4
    assert (images >= 0).all() and (images <= 1).all()
    assert all((image != 0.5).any() for image in images[6:])
    assert np.array_equal(images, stamped(x, y, np.random.default_rng(0), copies=3)[0])
    assert len(stamped(x, y, np.random.default_rng(0), copies=0)[1]) == 6


def test_a_lifespan_ends_where_the_success_first_falls() -> None:
    def outcome(number: int, k: int) -> Outcome:
        plain = Rate(k=0, n=1)
        return Outcome(Round(number, (), None, {}, {}), {}, plain, Rate(k=k, n=10), plain, plain)

    run = [outcome(number, k) for number, k in enumerate((0, 9, 8, 5, 4, 9), 1)]
    assert lifespan(run, 2) == 2
    assert lifespan(run, 1) == 0
    assert lifespan(run[:4], 2) == 2


def test_digests_tell_names_types_and_values() -> None:
    base = {"a": np.zeros(2, np.float32), "b": np.ones(2, np.float32)}
    others = [
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"].astype(np.float64), "b": base["b"]},
        {"a": base["a"].reshape(1, 2), "b": base["b"]},
        {"a": base["a"], "b": base["b"] * 2},
    ]
    assert tensors_digest(dict(reversed(base.items()))) == tensors_digest(base)
    assert len({tensors_digest(one) for one in (base, *others)}) == 5


def test_a_server_without_trusted_samples_has_no_update_of_its_own() -> None:
    assert Federation(seed=0, root_size=0).server(None).root is None
    assert Federation(seed=0).server(None).root is not None


def test_a_test_part_that_is_all_the_server_s_measures_nothing() -> None:
    server = SMALL["server"] | {"trusted": 1000}
    with pytest.raises(DataError, match="1000 are the server's own"):
        samples_of(Settings(**SMALL | {"test": 5000, "server": server}), "digits", 0)


def test_models_of_a_round_that_was_not_aggregated_are_not_kept_as_refused(tmp_path: Path) -> None:
    kept: list[str] = []

    class Noted(Study):
        def _save(self, model: Any, path: Path, data: Any) -> None:
            kept.append(path.name)

    parts: list[Any] = [None] * 5
    study = Noted(*parts, tmp_path, 3, parts[0])
    replies = [Reply(name, {"w": np.zeros(2)}) for name in ("a", "b")]
    study._keep_refused(replies, Round(1, ("a",), None, {"b": Reason("OS505", "too long")}, {}), parts[0])
    assert kept == ["round-001-b.safetensors"]
