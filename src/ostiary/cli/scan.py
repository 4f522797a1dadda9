"""`ostiary scan`."""

import sys
from pathlib import Path
from typing import Any

import click

from ostiary.cli import common

EPILOG = """\b
Examples:
  ostiary scan model.safetensors --trusted digits
  ostiary scan net.pth --arch wrn-16-1 --normalize none --trusted cifar10/test.parquet -o report.html
  ostiary scan net.pth --arch mymodels.py:make_net --trusted validation/ --preset thorough --format json
  ostiary scan tuned-model/ --trusted chats.jsonl
  ostiary scan adapter/ --base base-model/ --trusted chats.jsonl --calibration our-adapters.json
  ostiary scan sentiment-model/ --trusted reviews.csv
  ostiary scan https://models.example.org/predict --trusted validation/ --limit 200
  ostiary scan http://localhost:8000/v1/chat/completions --trusted chats.jsonl --set phrase-trial.phrases=suspects.txt

The verdict is backdoor (a recovered trigger was confirmed on trusted images that the search never saw), suspect,
none-found or incomplete. None-found is no proof of absence: `ostiary methods` lists what each method cannot see.
"""


@click.command("scan", epilog=EPILOG)
@click.argument("model")
@click.option("--trusted", metavar="DATA", help="A few samples you trust, with labels.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Draw N of the trusted samples, class by class.")
@click.option("--base", metavar="DIR", help="The language model that MODEL, a LoRA adapter, is for.")
@click.option("--served", metavar="NAME", help="The language model to ask, of an endpoint that has several.")
@common.model_options
@common.method_options()
@click.option("--calibration", metavar="FILE", help="Reference models or adapters (`ostiary calibrate`), or 'none'.")
@click.option("-o", "out", metavar="FILE", help=common.REPORT_HELP)
@click.option("--dry-run", is_flag=True, help="Print the plan and the skips, then stop.")
@common.output_options()
@common.run_options()
@click.pass_context
def command(ctx: click.Context, /, model: str, **o: Any) -> None:
    """Examine MODEL for a backdoor, with a few samples you trust.

    MODEL is a safetensors file, a weights-only PyTorch checkpoint, an ONNX file, a Hugging Face folder of an image
    classifier or of a language model (then DATA are prompts with answers), or the URL of an endpoint: a black box that
    is asked some 100,000 times, or, where it ends in /chat/completions, a language model, asked 130 to 570 times.
    OSTIARY_ENDPOINT_AUTH is sent to it as the Authorization header; --classes and --input say how many classes it knows
    and what it is sent.
    """
    call = common.call_settings(ctx, **o)
    reports = common.check_reports([*o["reports"], *([o["out"]] if o["out"] else [])])
    from ostiary.core.seal import close_seal

    close_seal()
    from ostiary.api import scan_model
    from ostiary.core.errors import ConfigError, FormatError
    from ostiary.core.plan import parse_sets
    from ostiary.models.chat_endpoint import is_chat_url
    from ostiary.models.http import is_url
    from ostiary.models.text_folder import is_text_classifier_folder, load_text_classifier
    from ostiary.scan.health import known
    from ostiary.scan.language import access_to, bank_of, have_of, planned_for
    from ostiary.scan.text_models import have_of_texts

    if not is_url(model) and not Path(model).exists():
        raise FormatError(f"no such file: '{model}'", hint="check the path of the model")
    chosen = {"methods": o["methods"], "preset": call["preset"], "params": parse_sets(o["sets"])}
    if not is_url(model) and is_text_classifier_folder(Path(model)):
        with call.options() as options:
            texts = common.open_labelled_texts(o["trusted"], o["limit"], call["seed"])
            if o["dry_run"]:
                classifier = load_text_classifier(model)
                common.show_plan("scan", have_of_texts(classifier, texts), **chosen, task="classify")
                return
            record = scan_model(model, texts, options=options, **chosen)
        sys.exit(common.conclude(record, call, reports=reports, exit_zero=o["exit_zero"], named=bool(o["methods"])))
    how = {key: o[key] for key in ("arch", "classes", "width", "normalize", "input_")}
    with call.options() as options:
        chats = is_chat_url(model)
        if o["served"] is not None and not chats:
            raise ConfigError("--served names a language model of an endpoint", hint="leave it out")
        language = chats or o["base"] is not None or (not is_url(model) and common.is_language(model))
        opened = common.open_prompts if language else common.open_trusted
        trusted = opened(o["trusted"], o["limit"], call["seed"])
        if chats:
            subject = common.open_chat(model, o["served"], base=o["base"], **how)
        elif o["base"] is not None:
            subject = common.open_adapter(model, o["base"], call["device"], **how)
        elif is_url(model):
            subject = common.open_endpoint(model, trusted, **how)
        else:
            subject = common.open_model(model, call["device"], gradients=False, **how)
        if o["dry_run"] and language:
            planned = planned_for(subject, bank_of(o["calibration"]), **chosen)
            common.show_methods("scan", have_of(trusted, access_to(subject)), planned)
            return
        if o["dry_run"]:
            common.show_plan("scan", known(subject, trusted)[0], **chosen)
            return
        record = scan_model(subject, trusted, calibration=o["calibration"], options=options, **chosen)
    sys.exit(common.conclude(record, call, reports=reports, exit_zero=o["exit_zero"], named=bool(o["methods"])))
