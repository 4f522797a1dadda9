"""What commands share: options, the settings of a call, printing a record, the exit code."""

import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ostiary.cli import settings
from ostiary.cli.output import print_record, write_reports
from ostiary.cli.progress import Progress, wants_bar
from ostiary.cli.terminal import drop_stdout
from ostiary.core.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from ostiary.core.records import Record
    from ostiary.core.session import Options
    from ostiary.data.texts import Task

F = TypeVar("F", bound=Callable[..., Any])

LEVELS = ("note", "suspect", "backdoor")
REPORT_SUFFIXES = (".html", ".json", ".md", ".sarif", ".xml")
REPORT_HELP = "Write a report: .html, .json, .md, .sarif or .xml (JUnit)."


def stack(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several option decorators as one, shown in the given order."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def global_options() -> Callable[[F], F]:
    """The options that work before and after the verb."""
    return stack(
        click.option("-q", "--quiet", is_flag=True, default=None, help="Nothing on stderr but errors."),
        click.option("-v", "--verbose", is_flag=True, default=None, help="More on stderr."),
        click.option("--no-progress", is_flag=True, default=None, help="One line per stage instead of a bar."),
        click.option("--color", type=click.Choice(settings.CHOICES["color"]), default=None, help="When to colour."),
    )


def seed_option() -> Callable[[F], F]:
    """The seed."""
    return click.option(
        "--seed", type=click.IntRange(min=0), default=None, help="Seed of every random choice.  [default: 0]"
    )


def run_options() -> Callable[[F], F]:
    """Seed, device, time limit, and the global options."""
    return stack(
        seed_option(),
        click.option("--device", default=None, help="cpu, cuda or cuda:N.  [default: cpu]"),
        click.option("--time-limit", type=float, default=None, metavar="SECONDS", help="Stop methods after this."),
        global_options(),
    )


def output_options() -> Callable[[F], F]:
    """What is printed, where reports go and what gives exit code 1."""
    return stack(
        click.option("--format", type=click.Choice(settings.CHOICES["format"]), default=None, help="Form on stdout."),
        click.option("--report", "reports", multiple=True, metavar="FILE", help=REPORT_HELP),
        click.option(
            "--fail-on", type=click.Choice(settings.CHOICES["fail_on"]), default=None, help="Lowest level for exit 1."
        ),
        click.option("--exit-zero", is_flag=True, help="Exit 0 whatever was found."),
    )


def method_options(presets: bool = True) -> Callable[[F], F]:
    """Which methods run, with which parameters."""
    options = [
        click.option("--method", "methods", multiple=True, metavar="ID", help="Run this method (repeatable)."),
        click.option("--set", "sets", multiple=True, metavar="ID.KEY=VALUE", help="Set a parameter of a method."),
    ]
    if presets:
        choice = click.Choice(settings.CHOICES["preset"])
        options.append(click.option("--preset", type=choice, default=None, help="Set of methods.  [default: standard]"))
    return stack(*options)


def model_options(function: F) -> F:
    """How to read the model."""
    return stack(
        click.option("--arch", metavar="NAME", help="Zoo name, or file.py:factory (your own code, which is run)."),
        click.option("--classes", type=int, metavar="N", help="Number of classes of a bare checkpoint."),
        click.option("--width", type=int, metavar="N", help="Width of a zoo architecture."),
        click.option("--normalize", metavar="NORM", help="none, cifar10, or MEAN,STD."),
        click.option("--input", "input_", metavar="C,H,W", help="Input shape.  [default: 3,32,32]"),
    )(function)


RECIPE = ("epochs", "batch", "lr", "padding", "flip", "label_smoothing")
"""The options of `training_options` that make up a recipe."""


def training_options(function: F) -> F:
    """What is trained, and how."""
    rate, smoothing = click.FloatRange(min=0, min_open=True), click.FloatRange(0, 1)
    return stack(
        click.option("--arch", default="small-cnn", show_default=True, help="Zoo architecture."),
        click.option("--width", type=click.IntRange(min=1), help="Its width."),
        click.option(
            "--epochs", type=click.IntRange(min=1), default=16, show_default=True, help="Passes over the data."
        ),
        click.option("--batch", type=click.IntRange(min=2), default=64, show_default=True, help="Samples per step."),
        click.option("--lr", type=rate, default=0.1, show_default=True, help="Peak rate."),
        click.option(
            "--padding", type=click.IntRange(min=0), default=2, show_default=True, help="Random shifts, in pixels."
        ),
        click.option("--flip", is_flag=True, help="Mirror half of the images."),
        click.option("--label-smoothing", type=smoothing, default=0.0, show_default=True, help="Smoothing."),
    )(function)


@dataclass(frozen=True, slots=True)
class Call:
    """The settings of one call of one command."""

    values: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    @contextmanager
    def options(self) -> Iterator["Options"]:
        """The library's options, with progress on stderr for as long as the block runs."""
        from ostiary.core.session import Options

        check_device(self["device"])
        limit = self["time_limit"]
        if limit is not None and not limit >= 0:
            raise ConfigError(f"--time-limit takes seconds from 0 on, not {limit:g}")
        bar = wants_bar(self["no_progress"], bool(os.environ.get("CI")))
        with Progress(quiet=self["quiet"], bar=bar, times=self["verbose"]) as progress:
            yield Options(
                seed=self["seed"],
                device=self["device"],
                time_limit=self["time_limit"],
                progress=progress,
                command=("ostiary", *sys.argv[1:]),
            )

    def note(self, text: str) -> None:
        """Tell something on stderr unless quiet."""
        if not self["quiet"]:
            click.echo(text, err=True)


def found_settings(ctx: click.Context, **flags: Any) -> dict[str, settings.Found]:
    """Every setting with its origin; what else `flags` holds is left out."""
    before: dict[str, Any] = ctx.find_root().obj or {}
    return settings.resolve({**before, **{key: value for key, value in flags.items() if value is not None}})


def call_settings(ctx: click.Context, **flags: Any) -> Call:
    """Settle every setting: the command's flags, then those before the verb, environment, file, default."""
    values = {key: found.value for key, found in found_settings(ctx, **flags).items()}
    os.environ["OSTIARY_RUNS"] = values["runs"]
    os.environ["OSTIARY_CACHE"], os.environ["OSTIARY_CACHE_LIMIT"] = values["cache"], str(values["cache_limit"])
    if values["color"] != "auto":
        ctx.color = values["color"] == "always"
    elif os.environ.get("NO_COLOR"):
        ctx.color = False
    return Call(values)


def check_device(device: str) -> None:
    """Raise ConfigError for a device that is not there."""
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ConfigError(f"no device '{device}'", hint="use cpu, cuda or cuda:N") from None
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        raise ConfigError(f"device '{device}' is not available here", hint="use --device cpu")


def open_model(path: str, device: str, *, gradients: bool = True, **how: Any) -> Any:
    """Load the model that a command names, with the options of `model_options`; without gradients if these may lack."""
    from ostiary.models.http import is_url
    from ostiary.models.load import load_model, load_predictor

    if is_language(path):
        from ostiary.models.text_folder import load_language

        _take_none(f"'{path}' is a language model and", how)
        return load_language(path, device=device)
    if is_url(path):
        raise ConfigError(f"'{path}' is an endpoint, which can be scanned and no more", hint="give the model's file")
    return (load_model if gradients else load_predictor)(path, device=device, **load_options(**how))


def open_text_model(path: str, device: str, **how: Any) -> Any:
    """As `open_model`, also for the folder of a classifier of texts."""
    from ostiary.models.text_folder import load_text_classifier

    if is_text_classifier(path):
        _take_none(f"'{path}' is a classifier of texts and", how)
        return load_text_classifier(path, device=device)
    return open_model(path, device, **how)


def open_adapter(path: str, base: str, device: str, **how: Any) -> Any:
    """The language model `base` with the adapter at `path` merged into it."""
    from ostiary.models.adapter import load_adapter

    return load_adapter(path, open_base(base, device, **how))


def open_base(path: str, device: str, **how: Any) -> Any:
    """The language model that adapters are for."""
    if not is_language(path):
        raise ConfigError(f"the base '{path}' is no language model's folder", hint="give the folder of the whole model")
    return open_model(path, device, **how)


def is_language(path: str) -> bool:
    """Whether a path leads to a language model's folder; raises ConfigError for an adapter, which is a part of one."""
    from ostiary.models.adapter import is_adapter_folder
    from ostiary.models.text_folder import is_language_folder

    if is_adapter_folder(Path(path)):
        raise ConfigError(f"'{path}' is an adapter, no whole model", hint="scan it on the model it is for, with --base")
    return is_language_folder(Path(path))


def is_text_classifier(path: str) -> bool:
    """Whether a path leads to the folder of a classifier of texts."""
    from ostiary.models.text_folder import is_text_classifier_folder

    return is_text_classifier_folder(Path(path))


def open_prompts(spec: str | None, limit: int | None, seed: int, *, task: "Task" = "chat") -> Any:
    """The trusted prompts and answers that a command names, or texts with labels, `limit` of them; None for none."""
    import torch

    from ostiary.data import open_any

    if spec is None:
        return None
    data = open_any(spec, task)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    return data if limit is None else data.subset(order[:limit])


def open_endpoint(url: str, trusted: Any, **how: Any) -> Any:
    """The model behind a URL, with what of `model_options` can be said of one; sent images are as `trusted` ones."""
    from ostiary.models.endpoint import Endpoint, url_shape

    own = [f"--{key}" for key in ("arch", "width", "normalize") if how.get(key) is not None]
    if own:
        raise ConfigError(f"an endpoint takes no {' or '.join(own)}", hint="its server decides that")
    return Endpoint(url, how["classes"], url_shape(load_options(**how).get("input_shape"), trusted))


def open_chat(url: str, served: str | None, **how: Any) -> Any:
    """The language model behind a URL, which takes none of the options that say how a file is read."""
    from ostiary.models.chat_endpoint import ChatEndpoint

    _take_none("a language model's endpoint", how)
    return ChatEndpoint(url, served)


def _take_none(what: str, how: dict[str, Any]) -> None:
    """Raise ConfigError where one of `model_options` is given for what says itself how it is read."""
    given = [f"--{key.rstrip('_')}" for key, value in how.items() if value is not None]
    if given:
        raise ConfigError(f"{what} takes no {' or '.join(given)}", hint="leave it out")


def load_options(**how: Any) -> dict[str, Any]:
    """The options of `model_options` as `load_model` takes them."""
    shape = how.pop("input_", None)
    if shape is not None:
        try:
            how["input_shape"] = tuple(int(part) for part in shape.split(","))
            if len(how["input_shape"]) != 3:
                raise ValueError
        except ValueError:
            raise ConfigError(f"--input takes C,H,W, not '{shape}'", hint="for example --input 3,32,32") from None
    return how


def check_outputs(*paths: str | None) -> None:
    """Refuse before any work what could not be written after it: existing, named twice, nowhere to put it."""
    from ostiary.core.files import refuse_existing

    given = [Path(path) for path in paths if path]
    for number, path in enumerate(given):
        refuse_existing(path)
        if path.absolute() in [other.absolute() for other in given[:number]]:
            raise OutputError(f"'{path}' is named for two outputs", hint="give each its own name")
        if not path.parent.is_dir():
            raise OutputError(f"cannot write '{path}': no folder '{path.parent}'", hint="make it first, or correct -o")
        if not os.access(path.parent, os.W_OK):
            raise OutputError(
                f"cannot write '{path}': '{path.parent}' may not be written", hint="choose another folder"
            )


def check_reports(paths: Sequence[str], *outputs: str | None, kinds: Collection[str] = REPORT_SUFFIXES) -> list[Path]:
    """The report paths, refused before any work as `check_outputs` does, or for their kind."""
    for path in paths:
        if Path(path).suffix not in kinds:
            known = ", ".join(kinds)
            raise ConfigError(f"'{path}' is no kind of report", hint=f"name it with one of {known}")
    check_outputs(*outputs, *paths)
    return [Path(path) for path in paths]


def conclude(record: "Record", call: Call, *, reports: Sequence[Path], exit_zero: bool, named: bool) -> int:
    """Print the record, write its reports and give the exit code; `named` says that methods were asked for by name."""
    try:
        print_record(record, call["format"], call["fail_on"], named=named)
    except BrokenPipeError:
        # A reader that went away changes neither the reports nor the exit code.
        drop_stdout()
    write_reports(record, reports, call["fail_on"], named=named)
    code = exit_code(record, call["fail_on"], named=named)
    return 0 if exit_zero and code == 1 else code


def exit_code(record: "Record", fail_on: str, *, named: bool) -> int:
    """0, 1, 3 or 130 as `docs/cli.md` says; 1 dominates 3."""
    if record.interrupted:
        return 130
    lowest = LEVELS.index(fail_on)
    levels = [LEVELS.index(finding.level) for result in record.results for finding in result.findings]
    if any(level >= lowest for level in levels) or "refused" in record.config:
        return 1
    coverage = record.coverage
    unfinished = coverage.failed or coverage.partial or (named and coverage.skipped) or not coverage.ok
    return 3 if unfinished or record.verdict == "incomplete" else 0


def open_test(spec: str) -> Any:
    """The set that a command names: its test part where it has two, else the whole of it."""
    from ostiary.core.errors import NoPart
    from ostiary.data import open_data

    try:
        return open_data(spec, "test")
    except NoPart:
        return open_data(spec)


def open_labelled_texts(spec: str | None, limit: int | None, seed: int) -> Any:
    """The trusted texts that a command names, cut to `limit` of them, class by class; None for none."""
    from ostiary.data import open_any, trusted_subset

    if spec is None:
        return None
    data = open_any(spec, "classify")
    return data if limit is None or limit >= len(data) else trusted_subset(data, limit, seed)


def open_trusted(spec: str | None, limit: int | None, seed: int) -> Any:
    """The trusted set that a command names (its test part where it has two), cut to `limit` samples; None for none."""
    from ostiary.data import trusted_subset

    if spec is None and limit is not None:
        raise ConfigError("--limit draws from the trusted samples, and there are none", hint="give --trusted DATA")
    if spec is None:
        return None
    data = open_test(spec)
    return trusted_subset(data, min(limit, len(data)), seed) if limit is not None else data


def show_plan(verb: str, have: Any, **chosen: Any) -> None:
    """Print which methods would run and which would be skipped, with the preset's time estimate."""
    from ostiary.core.plan import plan

    show_methods(verb, have, plan(verb, access=have.access, **chosen))


def show_methods(verb: str, have: Any, planned: Sequence[Any]) -> None:
    """As `show_plan`, of methods that are planned already."""
    from ostiary.core.plan import ESTIMATES, is_black_box

    for method in planned:
        unmet = method.card.needs.unmet(have)
        click.echo(f"{method.card.id:<32} {'skipped: ' + unmet if unmet else 'runs: ' + method.card.cost}")
    outside = is_black_box(verb, have.access)
    text = "texts" if verb != "scan" else "language model from outside" if outside else "language model"
    click.echo(f"time: {ESTIMATES[text if have.modality == 'text' else 'black box' if outside else verb]}")
