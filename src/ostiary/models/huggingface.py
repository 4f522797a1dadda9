"""Models in Hugging Face folders, without network and without code from the folder; image classifiers among them."""

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ostiary.core.errors import FormatError, MissingExtra, ModelError
from ostiary.models.checkpoint import check_finite, parse_json, read_state
from ostiary.models.classifier import TorchClassifier
from ostiary.models.load import check_shape, parse_normalize

MAX_JSON = 50 * 2**20
SIZE = 224
TEXTS = "ForSequenceClassification"
"""How the architectures end that put texts into classes."""
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


class LogitsOf(nn.Module):
    """A transformers model that takes pixel values and gives the logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [n, c, h, w] to logits [n, k]."""
        logits: Tensor = self.model(pixel_values=x).logits
        return logits


def load_folder(
    folder: Path,
    classes: int | Sequence[str] | None = None,
    normalize: str | None = None,
    input_shape: tuple[int, int, int] | None = None,
) -> TorchClassifier:
    """The image classifier in `folder`: `config.json`, weights, and `preprocessor_config.json` if there is one.

    Class names come from `id2label`, normalisation and size from the preprocessor; the arguments win over both.
    Weights are safetensors where present, else weights-only pickles.

    Raises FormatError for a folder that is not such a model, ModelError for one that brings code, is an adapter,
    is quantised, lacks weights or takes texts, and MissingExtra without transformers.
    """
    if names_architecture(folder, TEXTS):
        raise ModelError(
            f"'{folder.name}' is a classifier of texts, and a model of images or a language model is needed here",
            hint="`ostiary screen`, `scan`, `repair`, `guard` and `evaluate` take classifiers of texts",
        )
    config, model = read_folder(folder, "AutoModelForImageClassification", "an image classifier")
    preprocessor = {}
    if (folder / "preprocessor_config.json").is_file():
        preprocessor = read_json(folder / "preprocessor_config.json")
    channels = config.get("num_channels", 3)
    shape = check_shape(input_shape or (channels, *_size(preprocessor, config, folder.name)))
    mean, std = _normalisation(preprocessor, folder.name) if normalize is None else parse_normalize(normalize, shape[0])
    names = class_names(config) if classes is None else classes
    module = LogitsOf(model)
    return TorchClassifier(
        module, names, shape, mean, std, arch=f"transformers/{type(model).__name__}", name=folder.name
    )


def read_folder(folder: Path, kind: str, words: str) -> tuple[dict[str, Any], nn.Module]:
    """The config and the module of a folder, built by the transformers class `kind`, in float32; else as `load_folder`.

    `words` say in errors what was expected.
    """
    if not (folder / "config.json").is_file():
        raise FormatError(
            f"the folder '{folder}' holds no config.json", hint="a model folder holds config.json and its weights"
        )
    config = read_json(folder / "config.json")
    _refuse(folder, config)
    files = _weight_files(folder)
    for file in files:
        check_finite(read_state(file)[0], f"{folder.name}/{file.name}")
    return config, _from_pretrained(folder, kind, words, use_safetensors=files[0].suffix == ".safetensors")


def names_architecture(folder: Path, *ends: str) -> bool:
    """True for a folder whose config names an architecture that ends so."""
    if not (folder / "config.json").is_file():
        return False
    named = read_json(folder / "config.json").get("architectures") or ()
    return any(str(one).endswith(ends) for one in named)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of at most 50 MiB; raises FormatError for anything else."""
    where = f"{path.parent.name}/{path.name}"
    try:
        if path.stat().st_size > MAX_JSON:
            raise FormatError(f"'{where}' is larger than the limit of {MAX_JSON} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(
            f"cannot read '{where}': {error}", hint="a model folder holds config.json and its weights"
        ) from error
    content = parse_json(text, "the content", where)
    if not isinstance(content, dict):
        raise FormatError(f"'{where}' holds a {type(content).__name__}, not an object")
    return content


def _refuse(folder: Path, config: dict[str, Any]) -> None:
    if "auto_map" in config:
        raise ModelError(
            f"'{folder.name}' brings code of its own (auto_map in config.json), which is not run",
            hint="rebuild the model from an architecture that transformers knows, or give a checkpoint and --arch",
        )
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"OS101 not examined: '{folder.name}' is an adapter, not a whole model",
            hint="a language model's LoRA adapter is scanned with --base; merge others into their base",
        )
    if "quantization_config" in config:
        raise ModelError(
            f"OS101 not examined: '{folder.name}' is quantised", hint="give the model it was quantised from"
        )


def _weight_files(folder: Path) -> list[Path]:
    for pattern in WEIGHTS:
        if files := sorted(folder.glob(pattern)):
            return files
    raise FormatError(
        f"'{folder.name}' has no weights: no {' and no '.join(WEIGHTS)}", hint="download the whole folder again"
    )


def _from_pretrained(folder: Path, kind: str, words: str, *, use_safetensors: bool) -> nn.Module:
    auto = getattr(transformers(), kind)
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            model, notes = auto.from_pretrained(
                str(folder),
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=use_safetensors,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # told below, where the library's own words name options of its own
            )
    except Exception as error:  # transformers raises almost anything
        reason = str(error).partition("\n")[0]
        raise ModelError(
            f"'{folder.name}' cannot be loaded as {words}: {reason}",
            hint=f"the folder must hold a model of {kind}",
        ) from error
    # transformers fills what is missing with random weights, and would only warn.
    parts = [
        f"{len(notes[key])} {what} ({', '.join(sorted(map(_unfit, notes[key]))[:3])})"
        for key, what in (
            ("missing_keys", "missing"),
            ("unexpected_keys", "unexpected"),
            ("mismatched_keys", "ill-shaped"),
        )
        if notes.get(key)
    ]
    if parts:
        raise ModelError(
            f"the weights in '{folder.name}' do not fit its config.json: {'; '.join(parts)}",
            hint="weights, config.json and tokenizer must be of one model; download or save the whole folder again",
        )
    found: nn.Module = model
    return found


def _unfit(entry: Any) -> str:
    """A weight that does not fit, with both shapes where transformers tells them."""
    match entry:
        case (name, given, wanted):
            return f"{name} is {list(given)}, by the config {list(wanted)}"
    return str(entry)


def transformers() -> Any:
    """The package, which the extra `text` brings; raises MissingExtra without it."""
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtra("Hugging Face folders need transformers", hint="pip install 'ostiary[text]'") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and warnings of transformers."""
    logging: Any = importlib.import_module("transformers.utils.logging")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _size(preprocessor: dict[str, Any], config: dict[str, Any], where: str) -> tuple[int, int]:
    size = preprocessor.get("crop_size") if preprocessor.get("do_center_crop") else None
    size = size or preprocessor.get("size") or config.get("image_size") or SIZE
    if isinstance(size, dict):
        side = size.get("shortest_edge")
        size = [size.get("height", side), size.get("width", side)]
    sides = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or not all(type(side) is int for side in sides):
        raise FormatError(f"cannot read the image size of '{where}': {size!r}", hint="give --input 3,224,224")
    return sides[0], sides[1]


def _normalisation(preprocessor: dict[str, Any], where: str) -> tuple[list[float] | None, list[float] | None]:
    """Mean and std for images in [0, 1]; the preprocessor states them for images times 255 times its factor."""
    if not preprocessor.get("do_normalize", "image_mean" in preprocessor):
        return None, None
    try:
        scale = (
            255 * float(preprocessor.get("rescale_factor", 1 / 255)) if preprocessor.get("do_rescale", True) else 255
        )
        mean, std = ([float(v) / scale for v in preprocessor[key]] for key in ("image_mean", "image_std"))
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise FormatError(f"cannot read the normalisation of '{where}'", hint="give --normalize") from error
    return mean, std


def class_names(config: dict[str, Any]) -> list[str] | None:
    """The names of the classes by `id2label`; None where it does not name them one by one."""
    labels = config.get("id2label")
    if not isinstance(labels, dict) or sorted(labels) != sorted(map(str, range(len(labels)))):
        return None
    return [str(labels[str(index)]) for index in range(len(labels))]
