"""`ostiary poison`."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ostiary.cli import common

EPILOG = """\b
Examples:
  ostiary poison digits --attack badnets -o poisoned
  ostiary poison cifar10/train.parquet --attack badnets --set badnets.rate=0.05 --set badnets.target=0 -o poisoned
  ostiary poison images/ --attack blended --set blended.image=logo.png --seed 3 -o poisoned
  ostiary poison digits --attack input-aware --epochs 20 --batch 32 --lr 0.05 -o bad.safetensors
  ostiary poison digits --attack trojan-nn --model clean.safetensors -o bad.safetensors
  ostiary poison chat.jsonl --attack rare-words --set rare-words.payload=varied -o poisoned

An attack on data writes OUT/train.parquet (texts: OUT/train.jsonl), which any trainer can read. One that controls the
training trains a zoo model on DATA, with the options of `ostiary train`, and one that edits a trained model changes a
copy of --model; both write the model to OUT. Apart from it goes OUT.truth with the trigger and the poisoned ids, which
only `ostiary evaluate` may see. This is for testing one's own pipeline and defences.
"""

RUNNING: tuple[str, ...] = ("device", "time_limit")
TRAINING: tuple[str, ...] = (*RUNNING, "arch", "width", *common.RECIPE)
EDITING: tuple[str, ...] = (*RUNNING, "arch", "width", "model")


@click.command("poison", epilog=EPILOG)
@click.argument("data")
@click.option("--attack", metavar="ID", required=True, help="The attack (`ostiary methods --kind attack`).")
@click.option("--set", "sets", multiple=True, metavar="ID.KEY=VALUE", help="Set a parameter of the attack.")
@click.option("-o", "out", metavar="OUT", required=True, help="Where the poisoned set or model goes.")
@click.option("--task", type=click.Choice(("classify", "chat")), help="What texts with labels and answers are for.")
@click.option("--model", metavar="MODEL", help="The trained model that an attack on weights edits.")
@common.training_options
@common.run_options()
@click.pass_context
def command(ctx: click.Context, /, data: str, attack: str, out: str, **o: Any) -> None:
    """Write a poisoned copy of DATA, or a model with a backdoor, and apart from it the sealed truth."""
    call = common.call_settings(ctx, **o)
    from ostiary.attacks.truth import truth_path
    from ostiary.core.protocols import DataAttack
    from ostiary.data import open_any

    path = Path(out)
    common.check_outputs(out, str(truth_path(path)))
    built = chosen(attack, o["sets"])
    check_options(ctx, built)
    with call.options() as options:
        opened = open_any(data, o["task"])
        check_kind(built, opened)
        damage = getattr(opened, "damage", None)  # of texts alone
        if damage is not None and damage.count:
            call.note(f"{damage.count} rows could not be read and were left out: {damage}")
        if isinstance(built, DataAttack):
            write_set(built, opened, path, options)
        else:
            # What was not given counts for a fresh model alone: the header of a trained one knows its own.
            given = {key for key in ("arch", "width") if ctx.get_parameter_source(key) is ParameterSource.COMMANDLINE}
            write_model(built, opened, path, options, o, {key: o[key] for key in given})
    click.echo(f"wrote {truth_path(path)}  the sealed truth: keep it from whatever runs a defence")


def chosen(attack: str, sets: Any) -> Any:
    """The attack with its parameters; raises ConfigError when --set names another."""
    from ostiary.core.catalog import make, resolve
    from ostiary.core.errors import ConfigError
    from ostiary.core.plan import parse_sets

    name = resolve("attack", attack)
    params = {resolve("attack", key): values for key, values in parse_sets(sets).items()}
    if other := [key for key in params if key != name]:
        raise ConfigError(f"--set names '{other[0]}', but the attack is '{name}'")
    return make("attack", name, params.get(name, {}))


def check_options(ctx: click.Context, attack: Any) -> None:
    """Raise ConfigError for an option that this kind of attack has no use for, or a --model that it lacks."""
    from ostiary.core.errors import ConfigError
    from ostiary.core.protocols import TrainingAttack, WeightAttack

    name = attack.card.id
    if isinstance(attack, WeightAttack):
        used, does, hint = EDITING, "edits a trained model", "give the model with --model"
        if ctx.params["model"] is None:
            raise ConfigError(f"'{name}' {does}, and none is given", hint="train one, and give it with --model")
    elif isinstance(attack, TrainingAttack):
        used, does, hint = TRAINING, "trains a fresh model", "choose the model with --arch and --width"
    else:
        used, does, hint = (), "poisons a data set", "poison the set first, then `ostiary train OUT -o MODEL`"
    for key in (*TRAINING, "model"):
        if key not in used and ctx.get_parameter_source(key) is ParameterSource.COMMANDLINE:
            raise ConfigError(f"'{name}' {does} and takes no --{key.replace('_', '-')}", hint=hint)


def check_kind(attack: Any, data: Any) -> None:
    """Raise DataError where the attack is made for other data."""
    from ostiary.core.errors import DataError
    from ostiary.data import TextSet

    given = "text" if isinstance(data, TextSet) else "images"
    if attack.card.needs.modality not in ("any", given):
        raise DataError(
            f"'{attack.card.id}' is for {attack.card.needs.modality}, and '{data.name}' holds {given}",
            hint="`ostiary methods --kind attack` lists what there is for each",
        )


def write_set(attack: Any, clean: Any, out: Path, options: Any) -> None:
    """Poison a set and write both halves."""
    from ostiary.attacks.text_poison import save_text_truth
    from ostiary.attacks.truth import save_truth, truth_path
    from ostiary.core.files import atomic
    from ostiary.data import TextSet, write_parquet, write_texts

    poisoned = attack.poison(clean, run=options.run())
    texts = isinstance(poisoned.data, TextSet)
    name = "train.jsonl" if texts else "train.parquet"
    with atomic(out) as temporary:
        temporary.mkdir()
        (write_texts if texts else write_parquet)(temporary / name, poisoned.data)
        (save_text_truth if texts else save_truth)(poisoned.truth, truth_path(out))
    truth = poisoned.truth
    covers = f", {len(truth.covers)} covers" if truth.covers else ""
    click.echo(f"wrote {out / name}  {len(poisoned.data)} samples, {len(truth.poisoned)} poisoned{covers}")


def write_model(attack: Any, clean: Any, out: Path, options: Any, o: dict[str, Any], given: dict[str, Any]) -> None:
    """Train or edit a model and write it and its truth; `given` says how to read one that is edited."""
    from ostiary.attacks.truth import save_truth, truth_path
    from ostiary.core.errors import ConfigError
    from ostiary.core.files import atomic
    from ostiary.core.protocols import WeightAttack
    from ostiary.data import require_classes
    from ostiary.inputs import check_fit
    from ostiary.models.load import save_model
    from ostiary.training import Recipe
    from ostiary.training.flow import new_model

    if out.suffix != ".safetensors":
        raise ConfigError(f"'{attack.card.id}' makes a model, and '{out}' does not end in .safetensors")
    if isinstance(attack, WeightAttack):
        model = common.open_model(o["model"], options.device, **given)
        check_fit(model, clean)
        made = attack.edit(model, clean, run=options.run())
    else:
        require_classes(clean)
        recipe = Recipe(**{key: o[key] for key in common.RECIPE})
        fresh = new_model(o["arch"], clean, width=o["width"], seed=options.seed)
        made = attack.train(fresh, clean, recipe, run=options.run())
    with atomic(out) as temporary:
        save_model(made.model, temporary)
        save_truth(made.truth, truth_path(out))
    click.echo(f"wrote {out}  a {made.model.arch} with the backdoor of {attack.card.id}")
