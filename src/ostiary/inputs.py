"""Opening what a verb is given, and checking that it fits together before any work starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from ostiary.core.card import Access, Have
from ostiary.core.errors import DataError
from ostiary.core.protocols import Predictor
from ostiary.core.records import Kind
from ostiary.core.session import Options, Session
from ostiary.data import Data, ImageSet, TextSet, open_data, per_class_counts, require_classes
from ostiary.data.texts import TOLD
from ostiary.models.carried import carried
from ostiary.models.classifier import TorchClassifier
from ostiary.models.endpoint import Endpoint, url_shape
from ostiary.models.http import is_url
from ostiary.models.language import LanguageModel
from ostiary.models.load import load_model, load_predictor
from ostiary.models.user import is_user_arch
from ostiary.training import accuracy

FEW_TRUSTED = 10


M = TypeVar("M")


def open_model(model: M | str | Path, options: Options) -> M | TorchClassifier:
    """A model on the asked device, loaded when `model` is a path; a black box stays as it is."""
    found = load_model(model) if isinstance(model, str | Path) else model
    return found.to(options.device) if isinstance(found, TorchClassifier) else found


def open_predictor(model: M | str | Path, options: Options, trusted: ImageSet | None = None) -> M | Predictor[Any]:
    """As `open_model`, for work that needs no gradients: a path may lead to a model without them, or be a URL.

    An endpoint is sent images of the shape of the trusted ones.
    """
    if isinstance(model, str) and is_url(model):
        return Endpoint(model, input_shape=url_shape(None, trusted))
    return load_predictor(model, device=options.device) if isinstance(model, str | Path) else open_model(model, options)


def open_set(data: ImageSet | str | Path) -> ImageSet:
    """An image set, opened when `data` is a name or path."""
    return open_data(data) if isinstance(data, str | Path) else data


def check_shape(model: Predictor[Any], data: ImageSet) -> None:
    """Raise DataError when the images of `data` are not of the model's shape."""
    shape = getattr(model, "input_shape", None)  # a black box need not say
    if shape is not None and tuple(data.shape) != tuple(shape):
        given, want = ("x".join(map(str, sides)) for sides in (data.shape, shape))
        raise DataError(
            f"'{data.name}' has images of {given} (channels x height x width), the model takes {want}",
            hint="resize the images, or say what the model takes with --input",
        )


def check_fit(model: Predictor[Any], data: ImageSet) -> None:
    """Raise DataError when `data` cannot be this model's trusted or test set: shape, number or order of classes."""
    require_classes(data)
    check_shape(model, data)
    if len(data.classes) != len(model.classes):
        raise DataError(
            f"'{data.name}' has {len(data.classes)} classes, the model {len(model.classes)}",
            hint="give data of the same task, every class named, in the order the model was trained with",
        )
    ours, theirs = tuple(data.classes), tuple(model.classes)
    # Mere numbers are no names: a model of eleven folders 0 to 10 may well have been trained in their order as text.
    if theirs != _numbers(model) and ours != theirs and set(ours) == set(theirs):
        at = next(index for index, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
        raise DataError(
            f"'{data.name}' names class {at} '{ours[at]}', the model '{theirs[at]}': the same classes in another order",
            hint="number the labels in the model's order and name the classes so",
        )


def check_alike(trusted: ImageSet, data: ImageSet) -> None:
    """Raise DataError when `trusted` cannot be of the task of the suspect `data`: shape, names and order of classes."""
    for what, given, want in (("images", trusted.shape, data.shape), ("classes", trusted.classes, data.classes)):
        if tuple(given) != tuple(want):
            raise DataError(
                f"'{trusted.name}' has {what} {_some(given)}, the suspect data {_some(want)}",
                hint="give trusted samples of the same task: images of one size, the same classes in the same order",
            )


def _some(values: Sequence[object]) -> str:
    shown = ", ".join(map(str, values[:5]))
    return f"({shown}, …)" if len(values) > 5 else f"({shown})"


def _numbers(model: Any) -> tuple[str, ...]:
    return tuple(map(str, range(len(model.classes))))


def have_of(model: Predictor[Any] | None, trusted: ImageSet | None, *, trigger: bool = False) -> Have:
    """What the planner may count on; checks that model and trusted set fit together."""
    if trusted is not None and model is not None:
        check_fit(model, trusted)
    rarest = min(per_class_counts(trusted)) if trusted is not None else 0
    if model is None:
        return Have(access="none", modality="images", trusted_per_class=rarest, trigger=trigger)
    # What gives labels alone says so.
    access: Access = "gradients" if isinstance(model, TorchClassifier) else getattr(model, "access", "probabilities")
    return Have(access=access, modality="images", trusted_per_class=rarest, trigger=trigger)


def start(
    kind: Kind,
    model: Any,
    options: Options,
    config: dict[str, Any],
    asked: Sequence[str],
    *,
    trusted: Data | None = None,
    data: Data | None = None,
    subject: str = "",
) -> Session:
    """Open the record of a run on these inputs; `model` is None where the data alone are looked at.

    A model is anything with a `digest` and `classes`: a predictor, or a language model, which has none, and whose
    template stands in the record.
    """
    digests = {} if model is None else {"model": model.digest}
    named = trusted if trusted is not None else data
    name, arch, caution = (getattr(model, key, None) for key in ("name", "arch", "caution"))
    code = getattr(model, "caution_code", "OS905")
    template = {"template": model.template.digest} if isinstance(model, LanguageModel) else {}
    config = {"model": name, "arch": arch, **template, **config}
    for role, part in (("data", data), ("trusted", trusted)):
        if part is not None:
            digests[role] = part.digest
            config[role] = {"name": part.name, "samples": len(part)}
    classes = class_names(model, named)
    session = Session(kind, subject or name or "model", classes, options, config, digests, tuple(asked))
    if caution:
        session.caution(code, caution)
    for part in (data, trusted):
        if isinstance(part, TextSet):
            _tell_rows(session, part)
    if isinstance(model, TorchClassifier) and (beside := carried(model.module)):
        session.caution("OS922", f"the model carries {beside}, and is judged with them")
    if arch and is_user_arch(arch):
        session.caution("OS907", f"the architecture '{arch}' is the user's own code and was run")
    if trusted is not None and (model is None or model.classes):
        try:
            _check_trusted(session, model, trusted)
        except KeyboardInterrupt:
            session.interrupted = True
            session.finish()
            raise
    return session


def _tell_rows(session: Session, texts: TextSet) -> None:
    """Caution where rows of a set of texts could not be read, or say nothing."""
    if texts.damage.count:
        session.caution("OS923", f"{texts.damage.count} rows could not be read and were left out: {texts.damage}")
    for what, told in (("text", texts.texts), ("answer", texts.answers or ())):
        if empty := [row for row, one in enumerate(told) if not one.strip()]:
            more = ", …" if len(empty) > TOLD else ""
            named = ", ".join(texts.ids[row] for row in empty[:TOLD])
            session.caution(
                "OS951", f"{len(empty)} of {len(texts)} rows of '{texts.name}' have no {what}: {named}{more}"
            )


def class_names(model: Any, data: Data | None) -> tuple[str, ...]:
    """The model's class names, or the data's where the model only numbers its classes or there is none."""
    if data is not None and model is not None and not model.classes:
        return ()
    if data is not None and (model is None or tuple(model.classes) == _numbers(model)):
        return tuple(data.classes)
    return () if model is None else tuple(model.classes)


def _check_trusted(session: Session, model: Any, trusted: Data) -> None:
    rarest, k = min(per_class_counts(trusted)), len(trusted.classes)
    if rarest < FEW_TRUSTED:
        session.caution("OS901", f"the rarest class has {rarest} trusted samples; rates measured on them are wide")
    if model is None:
        return
    found = accuracy(model, trusted)
    session.config["trusted_accuracy"] = found.model_dump(mode="json")
    if found.low <= 1 / k + 0.1 * (1 - 1 / k):
        session.caution("OS903", f"accuracy on the trusted samples is {found}, near chance for {k} classes")
