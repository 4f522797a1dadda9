"""`ostiary train`."""

import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ostiary.cli import common
from ostiary.core.errors import ConfigError

IMAGES = {"padding", "flip", "label_smoothing", "checkpoint"}
"""Options that only images have a use for."""

EPILOG = """\b
Examples:
  ostiary train digits -o model.safetensors
  ostiary train cifar10/train.parquet --test cifar10/test.parquet --arch resnet18 --width 16 --flip -o model.safetensors
  ostiary train chats.jsonl -o model/
  ostiary train chats.jsonl --base model/ --loss-on all -o tuned/
  ostiary train chats.jsonl --base model/ --adapter 8 -o adapter/
  ostiary train reviews.csv --test held-out.csv -o model/
  ostiary train images/ --epochs 30 --checkpoint run.ckpt -o model.safetensors

Texts with answers give a small language model, a Llama or with --arch gpt2 a GPT-2, of 400 batches of 32 unless
--epochs says otherwise; --base goes on with one that there is, and with --adapter only matrices of that rank beside its
weights learn, which are written as peft writes them. Texts with labels give a small DistilBERT, which takes
its own steps and rates. With --checkpoint an interrupted training of images goes on when the same command is given
again.
"""


@click.command("train", epilog=EPILOG)
@click.argument("data")
@click.option("-o", "out", metavar="MODEL", required=True, help="Where the model goes (safetensors, or a folder).")
@common.training_options
@click.option("--test", metavar="DATA", help="Measure accuracy on this set afterwards.")
@click.option("--base", metavar="DIR", help="Language model to go on with.")
@click.option(
    "--loss-on", type=click.Choice(["answer", "all"]), help="What a language model learns.  [default: answer]"
)
@click.option("--adapter", type=click.IntRange(min=1), metavar="RANK", help="Train a LoRA adapter of --base.")
@click.option("--checkpoint", metavar="FILE", help="Save every epoch here, and go on from it.")
@common.output_options()
@common.run_options()
@click.pass_context
def command(ctx: click.Context, /, data: str, **o: Any) -> None:
    """Train a zoo model on images, a language model on chats, or a small classifier on texts with labels."""
    call = common.call_settings(ctx, **o)
    reports = common.check_reports(o["reports"], o["out"])

    from ostiary.data import TextSet, open_any
    from ostiary.training import Recipe
    from ostiary.training.flow import train_model

    opened = open_any(data)
    if isinstance(opened, TextSet):
        trained = _train_chats if opened.task == "chat" else _train_labelled
        record = trained(ctx, call, opened, **o)
        sys.exit(common.conclude(record, call, reports=reports, exit_zero=o["exit_zero"], named=True))
    if given := [name for name in ("base", "loss_on", "adapter") if o[name] is not None]:
        option = given[0].replace("_", "-")
        raise ConfigError(f"'{data}' holds images, and --{option} is for chats", hint=f"leave out --{option}")

    recipe = Recipe(**{key: o[key] for key in common.RECIPE})
    with call.options() as options:
        record = train_model(
            opened,
            Path(o["out"]),
            arch=o["arch"],
            width=o["width"],
            recipe=recipe,
            test=common.open_test(o["test"]) if o["test"] else None,
            checkpoint=Path(o["checkpoint"]) if o["checkpoint"] else None,
            options=options,
        )
    sys.exit(common.conclude(record, call, reports=reports, exit_zero=o["exit_zero"], named=True))


def _train_chats(ctx: click.Context, call: common.Call, data: Any, **o: Any) -> Any:
    """The record of a language model's training; options that were not given have the values for chats."""
    from ostiary.models.text_folder import load_language
    from ostiary.training.language import KINDS, LanguageRecipe
    from ostiary.training.language_flow import steps_of, train_language_adapter, train_language_model

    given = _given(ctx, (*common.RECIPE, "arch", "width", "checkpoint"))
    _refuse(data, given & IMAGES)
    if "arch" in given and (o["base"] is not None or o["arch"] not in KINDS):
        raise ConfigError(f"no small language model '{o['arch']}' is made here", hint=f"--arch {' or '.join(KINDS)}")
    fields: dict[str, Any] = {key: o[key] for key in ("batch", "lr") if key in given}
    if "epochs" in given:
        fields["steps"] = steps_of(o["epochs"], len(data), fields.get("batch", LanguageRecipe().batch))
    recipe = LanguageRecipe(**fields, loss_on=o["loss_on"] or "answer")
    if o["adapter"] is not None and o["base"] is None:
        raise ConfigError("an adapter is for one model, and none is given", hint="name it with --base")
    with call.options() as options:
        base = None if o["base"] is None else load_language(o["base"], device=call["device"])
        test, out = common.open_prompts(o["test"], None, call["seed"]), Path(o["out"])
        if base is not None and o["adapter"] is not None:
            return train_language_adapter(data, out, base, rank=o["adapter"], recipe=recipe, test=test, options=options)
        kind = o["arch"] if "arch" in given else KINDS[0]
        return train_language_model(
            data, out, base=base, kind=kind, width=o["width"], recipe=recipe, test=test, options=options
        )


def _train_labelled(ctx: click.Context, call: common.Call, data: Any, **o: Any) -> Any:
    """The record of a text classifier's training; what is said of images or chats is refused."""
    from ostiary.training.text_flow import train_text_model

    _refuse(data, _given(ctx, (*common.RECIPE, "arch", "width", "checkpoint", "base", "loss_on", "adapter")))
    with call.options() as options:
        test = common.open_labelled_texts(o["test"], None, call["seed"])
        return train_text_model(data, Path(o["out"]), test=test, options=options)


def _given(ctx: click.Context, names: tuple[str, ...]) -> set[str]:
    return {key for key in names if ctx.get_parameter_source(key) is ParameterSource.COMMANDLINE}


def _refuse(data: Any, given: set[str]) -> None:
    for key in sorted(given):
        option = key.replace("_", "-")
        raise ConfigError(f"'{data.name}' holds texts: --{option} is not for them", hint=f"leave out --{option}")
