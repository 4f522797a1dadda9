"""The verbs: scan a model, screen a data set, repair a model, fit a guard, harden a training. Each returns a Record."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ostiary.core.errors import ConfigError, DataError
from ostiary.core.files import refuse_existing
from ostiary.core.plan import EXHAUSTIVE, plan
from ostiary.core.protocols import Predictor
from ostiary.core.records import Record
from ostiary.core.reference import Reference
from ostiary.core.session import Options
from ostiary.core.types import Images
from ostiary.data import Data, ImageSet, TextSet, open_any, require_classes
from ostiary.data.texts import Task
from ostiary.inputs import check_alike, check_fit, class_names, have_of, open_model, open_predictor, open_set, start
from ostiary.models.chat_endpoint import ChatEndpoint, is_chat_url
from ostiary.models.classifier import TorchClassifier
from ostiary.models.language import LanguageModel
from ostiary.models.text_classifier import TextClassifier
from ostiary.models.text_folder import (
    is_language_folder,
    is_text_classifier_folder,
    load_language,
    load_text_classifier,
)
from ostiary.scan.adapter_bank import AdapterBank
from ostiary.scan.calibration import null_for
from ostiary.scan.health import known
from ostiary.training import Recipe

Params = Mapping[str, Mapping[str, Any]]

__all__ = ["Options", "fit_guard", "harden_training", "repair_model", "scan_model", "screen_data"]


def scan_model(
    model: Predictor[Images] | LanguageModel | ChatEndpoint | TextClassifier | str | Path,
    trusted: Data | str | Path | None = None,
    *,
    methods: Sequence[str] = (),
    preset: str = "standard",
    params: Params | None = None,
    calibration: Reference | AdapterBank | str | Path | None = None,
    options: Options | None = None,
) -> Record:
    """Examine a model for a backdoor with a few trusted samples.

    `model` is a classifier, a language model, a black box (a `BlackBox` around a function, an `Endpoint`, or anything
    with `classes`, `digest` and `predict`), a URL (of a language model where it ends in /chat/completions), or a path
    to one of them; `trusted` a set or what `open_any` takes.
    `calibration` is a reference or its file: models of the same kind that nobody is known to have attacked; for a LoRA
    adapter on its base (`load_adapter`) a bank of adapters. Without it a shipped one that fits is used, with "none" the
    classes of the model are only compared with one another. Without gradients, or where they lead nowhere, the preset
    holds the methods that ask for answers alone. Once a backdoor is confirmed, the rest of a preset is skipped, but for
    that of "thorough".
    Raises OstiaryError for what cannot be read or does not fit together; a method's own failure is
    in the record.
    """
    options = options or Options()
    if isinstance(model, str) and is_chat_url(model):
        model = ChatEndpoint(model)
    if (language := model if isinstance(model, ChatEndpoint) else _language(model, options)) is not None:
        from ostiary.scan.language import scan_language

        how: dict[str, Any] = {"methods": methods, "preset": preset, "params": params, "options": options}
        return scan_language(language, _prompts(trusted), calibration=calibration, **how)
    if isinstance(model, str | Path) and is_text_classifier_folder(Path(model)):
        model = load_text_classifier(model, device=options.device)
    if isinstance(model, TextClassifier):
        from ostiary.scan.text_models import scan_text_classifier

        texts = open_any(trusted, "classify") if isinstance(trusted, str | Path) else trusted
        return scan_text_classifier(model, texts, methods=methods, preset=preset, params=params, options=options)
    if isinstance(trusted, TextSet):
        raise DataError("the trusted samples are texts, the model takes images", hint="give a set of images")
    if isinstance(calibration, AdapterBank):
        raise ConfigError("a bank of adapters judges adapters, and this is none", hint="leave out the calibration")
    trusted = None if trusted is None else open_set(trusted)
    model = open_predictor(model, options, trusted)
    have, health = known(model, trusted)  # type: ignore[arg-type]  # texts are gone by now
    planned = plan("scan", methods=methods, preset=preset, params=params, access=have.access)
    asked = [item.card.id for item in planned]
    null = null_for(model, planned, class_names(model, trusted), calibration)
    session = start("scan", model, options, {"preset": preset}, asked, trusted=trusted)
    session.null = null
    for code, text in health.cautions:
        session.caution(code, text)
    session.execute_all(planned, model, trusted, have=have, exhaustive=bool(methods) or preset == EXHAUSTIVE)
    if (queries := getattr(model, "queries", None)) is not None:
        session.config["queries"] = queries
    return session.finish()


def screen_data(
    data: Data | str | Path,
    model: TorchClassifier | LanguageModel | TextClassifier | str | Path | None = None,
    *,
    trusted: Data | str | Path | None = None,
    methods: Sequence[str] = (),
    preset: str = "standard",
    params: Params | None = None,
    retrain: str | Path | None = None,
    task: Task | None = None,
    options: Options | None = None,
) -> Record:
    """Rank the samples of a suspect data set; without a model a small one is trained on the set itself.

    `data` is a set or what `open_any` takes. Texts are looked at alone; beside prompts and answers `model` may be the
    language model that is to be fine-tuned on them; `trusted` are some that are no part of them; beside texts with
    labels it may be a classifier that was trained on them. `task` says what a file of texts is for that has both labels
    and answers.

    None is trained where every method looks at the data alone and nothing is to be retrained: the methods are then
    given None, and the record names no model. With a few `trusted` samples of the same classes, methods run that hold
    the suspect ones against them. With `retrain` a model is trained anew on the samples that are not suspected, written
    there and compared.
    Raises OstiaryError for what cannot be read or does not fit together; a method's own failure is in the record.
    """
    options = options or Options()
    if retrain is not None:
        refuse_existing(Path(retrain))
    data = open_any(data, task) if isinstance(data, str | Path) else data
    if isinstance(data, TextSet):
        from ostiary.screen.texts import refuse_beside, screen_texts

        beside = _text_model(model, options)
        refuse_beside(model=model if beside is None else None, retrain=retrain)
        rows = open_any(trusted, data.task) if isinstance(trusted, str | Path) else trusted
        if rows is not None and not isinstance(rows, TextSet):
            raise DataError("the data are texts, the trusted samples are images", hint="give a set of texts")
        return screen_texts(
            data,
            methods=methods,
            preset=preset,
            params=params,
            options=options,
            model=beside,
            trusted=rows,
        )
    if isinstance(model, LanguageModel | TextClassifier) or isinstance(trusted, TextSet):
        raise DataError("the data are images, the model or the trusted samples are for texts")
    planned = plan("screen", methods=methods, preset=preset, params=params)
    trusted = None if trusted is None else open_set(trusted)
    return _screen_images(data, model, trusted, planned, preset, retrain, options)


def _screen_images(
    data: ImageSet,
    model: TorchClassifier | str | Path | None,
    trusted: ImageSet | None,
    planned: Sequence[Any],
    preset: str,
    retrain: str | Path | None,
    options: Options,
) -> Record:
    from ostiary.screen.retrain import retrain as train_anew
    from ostiary.screen.summary import summariser
    from ostiary.training.quick import quick_model

    require_classes(data)
    alone = retrain is None and all(method.card.needs.access == "none" for method in planned)
    looked: TorchClassifier | None = None
    if model is not None:
        looked = open_model(model, options)
    elif not alone:
        looked = quick_model(data, options.run())
    if looked is not None:
        check_fit(looked, data)
    elif trusted is not None:
        check_alike(trusted, data)
    have = dataclasses.replace(have_of(looked, trusted), training_data=True)
    asked = [item.card.id for item in planned]
    session = start("screen", looked, options, {"preset": preset}, asked, trusted=trusted, data=data, subject=data.name)
    if model is None and looked is not None:
        session.caution("OS908", "no model was given; a small one was trained on the suspect data")
    for method in planned:
        if session.interrupted:
            break
        session.execute(method, data, looked, trusted, have=have, summarise=summariser(data, method.card))
    finished = not session.interrupted and any(one.status == "ok" for one in session.results)
    if retrain is not None and looked is not None and finished:
        train_anew(session, data, looked, trusted, Path(retrain))
    return session.finish()


def repair_model(
    model: TorchClassifier | LanguageModel | TextClassifier | str | Path,
    trusted: Data | str | Path | None,
    out: str | Path,
    *,
    scan: Path | str | None = None,
    method: str | None = None,
    params: Params | None = None,
    max_loss: float = 2.0,
    base: LanguageModel | TextClassifier | str | Path | None = None,
    options: Options | None = None,
) -> Record:
    """Write a repaired copy of `model` to `out` and scan it again; see `ostiary.repair.flow` and `text_flow`.

    `base` is the model of texts that `model` was fine-tuned from, or one that teaches it, for the repairs that go by
    one.
    """
    options = options or Options()
    how: dict[str, Any] = {"scan": scan, "method": method, "params": params, "max_loss": max_loss, "options": options}
    if (subject := _text_model(model, options)) is not None:
        from ostiary.repair.text_flow import repair_texts

        task: Task = "chat" if isinstance(subject, LanguageModel) else "classify"
        rows: Any = open_any(trusted, task) if isinstance(trusted, str | Path) else trusted
        return repair_texts(subject, rows, Path(out), base=_base(base, subject, options), **how)
    if base is not None:
        raise ConfigError("a base is what models of texts are repaired with", hint="leave --base out")
    from ostiary.repair.flow import repair

    if isinstance(trusted, TextSet):
        raise DataError("the trusted samples are texts, the model takes images", hint="give a set of images")
    images = None if trusted is None else open_set(trusted)
    return repair(open_model(model, options), images, Path(out), **how)  # type: ignore[arg-type]


def _language(model: object, options: Options) -> LanguageModel | None:
    """The language model that is given, or that a path leads to; None for another."""
    if isinstance(model, str | Path) and is_language_folder(Path(model)):
        return load_language(model, device=options.device)
    return model if isinstance(model, LanguageModel) else None


def _base(
    base: object, model: LanguageModel | TextClassifier, options: Options
) -> LanguageModel | TextClassifier | None:
    """The base that a repair goes by. Raises ConfigError for what is no model of the kind of the repaired one."""
    found = _text_model(base, options)
    if base is not None and not isinstance(found, type(model)):
        what = "language model" if isinstance(model, LanguageModel) else "classifier of texts"
        raise ConfigError(f"the base '{base}' is no folder of a {what}", hint="give the folder of the whole model")
    return found


def _text_model(model: object, options: Options) -> LanguageModel | TextClassifier | None:
    """As `_language`, also for a classifier of texts."""
    if isinstance(model, str | Path) and is_text_classifier_folder(Path(model)):
        return load_text_classifier(model, device=options.device)
    return model if isinstance(model, TextClassifier) else _language(model, options)


def _prompts(trusted: Data | str | Path | None) -> Data | None:
    """Trusted rows for a language model, opened where a path is given."""
    return open_any(trusted, "chat") if isinstance(trusted, str | Path) else trusted


def fit_guard(
    model: TorchClassifier | LanguageModel | TextClassifier | str | Path,
    trusted: Data | str | Path,
    out: str | Path,
    *,
    method: str | None = None,
    params: Params | None = None,
    options: Options | None = None,
) -> Record:
    """Fit an inference filter to `model` on trusted samples and save it to `out`.

    Without a `method` it is the one that does best on the bench of those that model and samples allow.
    """
    from ostiary.guard.flow import fit

    options = options or Options()
    how: dict[str, Any] = {"method": method, "params": params, "options": options}
    if (texts := _text_model(model, options)) is not None:
        task: Task = "chat" if isinstance(texts, LanguageModel) else "classify"
        rows = open_any(trusted, task) if isinstance(trusted, str | Path) else trusted
        return fit(texts, rows, Path(out), **how)
    images = open_set(trusted) if not isinstance(trusted, TextSet) else trusted
    return fit(open_model(model, options), images, Path(out), **how)


def harden_training(
    data: ImageSet | str | Path,
    out: str | Path,
    *,
    method: str,
    params: Params | None = None,
    arch: str = "small-cnn",
    width: int | None = None,
    recipe: Recipe | None = None,
    trusted: ImageSet | str | Path | None = None,
    test: ImageSet | str | Path | None = None,
    options: Options | None = None,
) -> Record:
    """Train a zoo model on suspect data so that poison does not take, and write it; see `ostiary.harden.flow`."""
    from ostiary.harden.flow import harden

    return harden(
        open_set(data),
        Path(out),
        method=method,
        params=params,
        arch=arch,
        width=width,
        recipe=recipe or Recipe(),
        trusted=None if trusted is None else open_set(trusted),
        test=None if test is None else open_set(test),
        options=options or Options(),
    )
