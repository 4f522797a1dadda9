"""Saving and loading: what is kept, and what each bad file says."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ostiary.core.errors import ConfigError, FormatError, ModelError, OstiaryError, OutputError
from ostiary.models.checkpoint import read_state
from ostiary.models.classifier import TorchClassifier
from ostiary.models.load import load_model, parse_normalize, save_model
from ostiary.models.zoo import ZOO, build

SHAPE = (3, 32, 32)
ARCHITECTURES = Path(__file__).parents[2] / "benchmarks" / "architectures"


def images(shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return torch.rand(3, *shape, generator=torch.Generator().manual_seed(7))


def small() -> nn.Module:
    return build("small-cnn", 4, width=8)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A file that `save_model` wrote."""
    path = tmp_path / "m.safetensors"
    save_model(TorchClassifier(small(), ["a", "b", "c", "d"], SHAPE, arch="small-cnn"), path)
    return path


def rewrite(path: Path, **changes: str) -> None:
    """Change header entries of a safetensors file."""
    state, metadata = read_state(path)
    path.unlink()
    save_file(state, path, metadata | changes)


@pytest.mark.parametrize("arch", ZOO)
def test_round_trip(arch: str, tmp_path: Path) -> None:
    classifier = TorchClassifier(
        build(arch, 3, width=8, in_channels=2), ["x", "ÿ", "z"], (2, 40, 36), (0.1, 0.2), (0.3, 0.4), arch=arch
    )
    path = tmp_path / "m.safetensors"
    save_model(classifier, path, parent="abc", extra={"note": "hello"})
    again = load_model(path)
    x = images((2, 40, 36))
    assert torch.equal(again.logits(x), classifier.logits(x))
    assert (again.classes, again.input_shape, again.arch) == (classifier.classes, classifier.input_shape, arch)
    assert again.digest == classifier.digest
    metadata = read_state(path)[1]
    assert (metadata["parent"], metadata["note"], metadata["width"]) == ("abc", "hello", "8")
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 4))
    module[2].weight = module[1].weight
    save_model(TorchClassifier(module, 4, (1, 2, 2)), tmp_path / "m.safetensors")
    assert set(read_state(tmp_path / "m.safetensors")[0]) == {"1.weight", "1.bias", "2.weight", "2.bias"}


def test_save_refuses(saved: Path, tmp_path: Path) -> None:
    classifier = load_model(saved)
    content = saved.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        save_model(classifier, saved)
    assert saved.read_bytes() == content
    with pytest.raises(OutputError, match="cannot write"):
        save_model(classifier, tmp_path / "nowhere" / "m.safetensors")
    with pytest.raises(ConfigError, match="'classes' is reserved"):
        save_model(classifier, tmp_path / "n.safetensors", extra={"classes": "7"})


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"state": {}}},
        lambda state: {"net": OrderedDict((f"module.{name}", value) for name, value in state.items())},
        lambda state: {"model": {"state_dict": {f"module._orig_mod.{n}": v for n, v in state.items()}}},
        lambda state: {f"model.{name}": value.double() for name, value in state.items()},
        lambda state: {name: value for name, value in state.items() if "num_batches" not in name},
    ],
    ids=["plain", "state_dict", "net+module", "nested", "model+double", "no counters"],
)
def test_forms_of_checkpoints(wrap: Any, tmp_path: Path) -> None:
    module = small()
    path = tmp_path / "m.pth.tar"
    torch.save(wrap(module.state_dict()), path)
    classifier = load_model(path, "small-cnn", classes=["a", "b", "c", "d"])
    assert torch.equal(classifier.logits(images()), module.eval()(images()))
    assert classifier.name == "m.pth.tar" and classifier.mean is None


def test_prefix_that_is_the_models_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "class Outer(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))\n"
        "    def forward(self, x):\n"
        "        return self.model(x)\n"
        "def make():\n"
        "    return Outer()\n"
    )
    weights = {"model.1.weight": torch.randn(3, 12), "model.1.bias": torch.zeros(3)}
    torch.save(weights, tmp_path / "m.pt")
    arch = f"{tmp_path / 'mine.py'}:make"
    classifier = load_model(tmp_path / "m.pt", arch, input_shape=(3, 2, 2))
    assert torch.equal(classifier.module.state_dict()["model.1.weight"], weights["model.1.weight"])
    assert classifier.arch == arch and classifier.classes == ("0", "1", "2")
    save_model(classifier, tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match="only zoo names are taken from a file") as caught:
        load_model(tmp_path / "m.safetensors")
    assert caught.value.hint is not None and "--arch" in caught.value.hint


@pytest.mark.parametrize(
    ("arch", "error", "words"),
    [
        ("nowhere.py:make", FormatError, "no such file: 'nowhere.py'"),
        ("no_such_package.module:make", ConfigError, "no module named 'no_such_package'"),
        ("math:no_such_thing", ConfigError, "no callable 'no_such_thing'"),
        ("builtins:dict", ModelError, "gave dict, not an nn.Module"),
        ("os:chdir", ModelError, "failed: TypeError"),
        ("resnet19", ConfigError, "unknown architecture"),
        (None, ModelError, "does not say its architecture"),
    ],
)
def test_bad_architectures(arch: str | None, error: type[OstiaryError], words: str, tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "m.pt")
    with pytest.raises(error, match=words) as caught:
        load_model(tmp_path / "m.pt", arch)
    assert caught.value.hint


def test_wrong_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(small().state_dict(), path)
    with pytest.raises(ModelError, match=r"not those of 'resnet18': no 4-dimensional 'conv1.weight'"):
        load_model(path, "resnet18")
    with pytest.raises(ModelError, match=r"2 of another form \('classifier.weight' \(4x64, not 9x64\)") as caught:
        load_model(path, "small-cnn", classes=9)
    assert caught.value.hint == "check --arch, --classes and --width"
    with pytest.raises(ModelError, match="of another form"):
        load_model(path, "small-cnn", width=16)
    state = small().state_dict()
    state["extra"] = state.pop("features.1.bias")
    torch.save(state, path)
    with pytest.raises(ModelError, match=r"1 missing \('features.1.bias'\); 1 unexpected \('extra'\)"):
        load_model(path, "small-cnn")
    torch.save(small().state_dict() | {"features.1.bias": torch.zeros(8, dtype=torch.int8)}, path)
    with pytest.raises(ModelError, match="not floating"):
        load_model(path, "small-cnn")


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers(bad: float, tmp_path: Path) -> None:
    state = small().state_dict()
    state["features.4.weight"][0, 0, 0, 0] = bad
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(ModelError, match=r"NaN or infinity in 'features.4.weight' \(1 of"):
        load_model(tmp_path / "m.pt", "small-cnn")


class Hostile:
    """Unpickles by running a command that creates the marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize("form", ["torch", "plain", "legacy", "text protocol"])
def test_hostile_pickle_does_not_run(form: str, tmp_path: Path) -> None:
    path, marker = tmp_path / "m.pt", tmp_path / "marker"
    if form in ("torch", "legacy"):
        torch.save({"w": Hostile(marker)}, path, _use_new_zipfile_serialization=form == "torch")
    else:
        path.write_bytes(pickle.dumps({"w": Hostile(marker)}, protocol=0 if form == "text protocol" else 4))
    words = "is not a torch checkpoint" if form == "text protocol" else "'m.pt' is a pickle that is not weights-only"
    with pytest.raises(FormatError, match=words) as caught:
        load_model(path, "small-cnn")
    assert caught.value.hint
    assert not marker.exists()
    if form in ("torch", "legacy"):
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert marker.exists(), "the pickle must be hostile for this to test anything"


def test_pickled_module(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "m.pt")
    with pytest.raises(FormatError, match=r"not weights-only: it calls ostiary.models.small_cnn.SmallCNN"):
        load_model(tmp_path / "m.pt", "small-cnn")


def safetensors_bytes(header: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def zip_bytes(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


def torch_bytes(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BAD_FILES = {
    "text.safetensors": (b"this is a text file, not weights", "not a safetensors file: it begins with b'this is a"),
    "short.safetensors": (b"abc", "not a safetensors file"),
    "empty.safetensors": (b"", "is empty"),
    "huge-header.safetensors": (
        struct.pack("<Q", 2**60) + b"{}" + b" " * 99,
        "header claims 1152921504606846976 bytes",
    ),
    "offsets.safetensors": (
        safetensors_bytes({"w": ENTRY | {"data_offsets": [0, 80]}}, bytes(8)),
        "truncated or damag",
    ),
    "shape.safetensors": (safetensors_bytes({"w": ENTRY | {"shape": [9]}}, bytes(8)), "truncated or damaged"),
    "json.safetensors": (struct.pack("<Q", 4) + b"{{{{", "truncated or damaged"),
    "none.safetensors": (safetensors_bytes({}, b""), "holds no tensors"),
    "text.pt": (b"hello world", "not a torch checkpoint: it begins with b'hello world'"),
    "cut.pt": (torch_bytes({"w": torch.zeros(99)})[:-200], "truncated or damaged torch checkpoint"),
    "number.pt": (torch_bytes(3), "holds no state dict: found int"),
    "keys.pt": (torch_bytes({"epoch": 1, "loss": 2.0}), "holds no state dict: found the keys 'epoch', 'loss'"),
    "mixed.pt": (torch_bytes({"w": torch.zeros(2), "epoch": 1}), "holds tensors beside 'epoch', which is a int"),
    "expanded.pt": (torch_bytes({"w": torch.zeros(1).expand(2**40)}), "claims more values than the file holds"),
    "sparse.pt": (torch_bytes({"w": torch.eye(2).to_sparse()}), "not examined: 'w' in 'sparse.pt' is sparse"),
    "script.pt": (zip_bytes("m/data.pkl", "m/constants.pkl"), "not examined: 'script.pt' is a TorchScript archive"),
    "other.pt": (zip_bytes("readme.txt"), "not examined: 'other.pt' is a zip archive without torch weights"),
    "m.gguf": (b"GGUF" + bytes(32), "not examined: 'm.gguf' is a GGUF file"),
    "named.bin": (b"GGUF" + bytes(32), "not examined: 'named.bin' is a GGUF file"),
    "m.h5": (b"\x89HDF\r\n\x1a\n", "not examined: 'm.h5' is an HDF5 file"),
    "lfs.safetensors": (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    "m.xyz": (b"abc", "cannot tell what 'm.xyz' is"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(name: str, tmp_path: Path) -> None:
    content, words = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError) as caught:
        load_model(tmp_path / name, "small-cnn")
    assert words in str(caught.value)
    assert caught.value.hint


def test_missing_and_truncated(saved: Path) -> None:
    with pytest.raises(FormatError, match="no such file") as caught:
        load_model(saved.with_name("other.pt"))
    assert caught.value.hint
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(FormatError, match="truncated or damaged"):
        load_model(saved)


def test_larger_than_the_limit(saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ostiary.models.checkpoint.MAX_BYTES", 2000)
    with pytest.raises(FormatError, match="more than the limit of 2000"):
        load_model(saved)
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", bytes(100_000))
    assert (tmp_path / "bomb.pt").stat().st_size < 2000
    with pytest.raises(FormatError, match="unpacks to 100000 bytes"):
        load_model(tmp_path / "bomb.pt", "small-cnn")


@pytest.mark.parametrize(
    ("entry", "value", "words"),
    [
        ("ostiary", "99", "header version '99'"),
        ("architecture", "evil.py:make", "only zoo names are taken"),
        ("architecture", "os:system", "only zoo names are taken"),
        ("class_names", "[1, 2, 3, 4]", "ill-formed"),
        ("class_names", "[", "not JSON"),
        ("class_names", '["a"]', "weights do not fit"),
        ("mean", "[NaN, 0, 0]", "ill-formed"),
        ("input", "[3, 100000, 100000]", "input shape"),
    ],
)
def test_hostile_headers(saved: Path, entry: str, value: str, words: str) -> None:
    rewrite(saved, **{entry: value})
    with pytest.raises(OstiaryError, match=words):
        load_model(saved)


def test_options_win_over_the_header(saved: Path) -> None:
    classifier = load_model(saved, classes=["w", "x", "y", "z"], normalize="cifar10", input_shape=(3, 48, 48))
    assert classifier.classes == ("w", "x", "y", "z") and classifier.input_shape == (3, 48, 48)
    assert classifier.mean == (0.4914, 0.4822, 0.4465)
    assert classifier.arch == "small-cnn"


def test_normalisations() -> None:
    assert parse_normalize("none", 3) == (None, None)
    assert parse_normalize("0.5,0.25", 3) == ((0.5,) * 3, (0.25,) * 3)
    assert parse_normalize("1,2,3,4,5,6", 3) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    for bad in ("", "0.5", "a,b", "0.5,0", "0.5,nan", "1,2,3,4", "cifar"):
        with pytest.raises(ConfigError, match="cannot read the normalisation"):
            parse_normalize(bad, 3)


def shared_data() -> Path:
    folder = os.environ.get("OSTIARY_DATA")
    if not folder or not (Path(folder) / "mnist").is_dir():
        pytest.skip("OSTIARY_DATA does not name the folder of real data and published models")
    return Path(folder)


def cifar10(folder: Path, n: int) -> tuple[Tensor, Tensor]:
    from PIL import Image
    from pyarrow import parquet

    table = parquet.read_table(folder / "cifar10" / "test.parquet").slice(0, n)
    pictures = [np.array(Image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in table["image"].to_pylist()]
    return torch.tensor(np.stack(pictures)).permute(0, 3, 1, 2) / 255, torch.tensor(table["label"].to_pylist())


@pytest.mark.parametrize(
    ("file", "arch", "low"),
    [
        ("models_nad/backdoored_student.pth.tar", "wrn-16-1", 0.70),
        ("models_ibau/cifar10_badnets_8_02_ckpt.pth", f"{ARCHITECTURES / 'ibau_vgg.py'}:cifar10", 0.72),
    ],
)
def test_published_cifar10_models(file: str, arch: str, low: float) -> None:
    folder = shared_data()
    x, y = cifar10(folder, 300)
    assert (load_model(folder / file, arch).predict(x).argmax(1) == y).float().mean() > low


def test_published_mnist_model() -> None:
    folder = shared_data()
    with np.load(folder / "mnist" / "mnist.npz", allow_pickle=False) as data:
        x, y = torch.tensor(data["x_test"][:500, None]) / 255, torch.tensor(data["y_test"][:500]).long()
    arch = f"{ARCHITECTURES / 'badnets_lenet.py'}:mnist"
    classifier = load_model(folder / "models_badnets_pytorch" / "badnet-MNIST.pth", arch)
    assert classifier.input_shape == (1, 28, 28)
    assert (classifier.predict(x).argmax(1) == y).float().mean() > 0.95


@pytest.mark.parametrize("name", ["second-object.pt", "unlisted-member.pt", "prefix-counted.pt", "same-name-twice.pt"])
def test_tricks_of_the_archive_are_refused(name: str, tmp_path: Path) -> None:
    from ostiary.bench.hostile import hostile_files

    one = next(one for one in hostile_files(tmp_path / "canary") if one.name == name)
    (tmp_path / name).write_bytes(one.data)
    with pytest.raises(FormatError, match=r"is refused: OS1|is not a torch checkpoint") as caught:
        read_state(tmp_path / name)
    assert caught.value.hint
