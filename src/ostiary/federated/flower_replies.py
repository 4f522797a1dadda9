"""Replies of Flower clients, read with distrust: known senders, readable bytes, metrics like the others'."""

import copy
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, TypeAlias

import numpy as np

from ostiary.core.errors import MissingExtra, NotMet
from ostiary.federated.layout import Tensors
from ostiary.federated.verdict import Reason

try:
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
except ImportError as error:
    raise MissingExtra("this needs Flower", hint="pip install 'ostiary[federated]'") from error

MASKED = "secaggplus_configs"
"""The record that Flower's secure aggregation sends in place of arrays."""

Form: TypeAlias = tuple[str, str, tuple[tuple[str, int | None], ...]]
"""Names of the two records, and of each metric whether it is a number (None) or a list of so many."""


@dataclass(slots=True)
class Read:
    """What could be read of the replies of a round, by the name of the node; why the rest could not."""

    messages: dict[str, Message] = field(default_factory=dict)
    tensors: dict[str, Tensors] = field(default_factory=dict)
    refused: dict[str, Reason] = field(default_factory=dict)
    form: Form = ("", "", ())

    def metrics(self, node: str) -> MetricRecord:
        """The metrics of a node that was read."""
        return next(iter(self.messages[node].content.metric_records.values()))

    def arrays(self, node: str) -> ArrayRecord:
        """The record of arrays of a node that was read."""
        return next(iter(self.messages[node].content.array_records.values()))

    def claim(self, node: str, key: str) -> float:
        """The number of examples that a node claims, NaN where it claims none."""
        claimed = self.metrics(node).get(key)
        return float("nan") if claimed is None or isinstance(claimed, list) else float(claimed)

    def rewritten(self, node: str, arrays: ArrayRecord | None, key: str, weight: float) -> Message:
        """A copy of a node's message that carries these arrays, and the weight given to it in place of its claim."""
        arrays_name, metrics_name, _ = self.form
        metrics = MetricRecord({**self.metrics(node), key: weight})
        message = copy.copy(self.messages[node])
        records = {metrics_name: metrics} if arrays is None else {arrays_name: arrays, metrics_name: metrics}
        message.content = RecordDict(records)
        return message


def read_replies(messages: Iterable[Message], asked: Sequence[int], *, arrays: bool) -> Read:
    """Sort what came back from the nodes that were `asked`; with `arrays`, each must bring tensors.

    Raises NotMet where every node replied, and masked by secure aggregation: no rule can work on it. One node alone
    cannot end a run that way: fewer masked replies, and those of a node that was asked alone, are dropped.
    """
    messages, read = list(messages), Read()
    counts = Counter(message.metadata.src_node_id for message in messages)
    known = frozenset(asked)
    for message in messages:
        node = message.metadata.src_node_id
        try:
            if node not in known:
                raise _Unfit("OS510", "it was not asked in this round")
            if counts[node] > 1:
                raise _Unfit("OS507", f"{counts[node]} replies came under this name")
            _one_of_each(message, arrays=arrays)
            if arrays:
                record = next(iter(message.content.array_records.values()))
                read.tensors[str(node)] = {name: _tensor(name, array) for name, array in record.items()}
            read.messages[str(node)] = message
        except _Unfit as error:
            read.refused[str(node)] = error.reason
    for node in known - counts.keys():
        read.refused[str(node)] = Reason("OS512", "no reply came")
    masked = [node for node in known if read.refused.get(str(node), Reason("", "")).code == "OS517"]
    if len(masked) == len(known) > 1:
        raise NotMet(
            "secure aggregation is on: every reply is masked, and every rule needs each client's own update",
            hint="take secaggplus_mod out of the ClientApp, or do without the guard",
        )
    _alike(read)
    return read


class _Unfit(Exception):
    """A reply cannot be used."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.reason = Reason(code, text)


def _one_of_each(message: Message, *, arrays: bool) -> None:
    if message.has_error():
        raise _Unfit("OS511", f"the client failed: {message.error.reason!r:.200}")
    if not message.has_content():
        raise _Unfit("OS513", "it is empty")
    content = message.content
    if MASKED in content.config_records:
        raise _Unfit("OS517", "it is masked by secure aggregation")
    for kind, records in (("arrays", content.array_records), ("metrics", content.metric_records)):
        if (kind == "metrics" or arrays) and len(records) != 1:
            raise _Unfit("OS513", f"it holds {len(records)} records of {kind}, not one")
    for name, value in next(iter(content.metric_records.values())).items():
        if not _finite(value):
            raise _Unfit("OS516", f"its metric {name!r:.60} is not finite")


def _finite(value: Any) -> bool:
    try:
        return all(math.isfinite(number) for number in (value if isinstance(value, list) else [value]))
    except OverflowError:  # a whole number that is no float
        return False


def _tensor(name: str, array: Any) -> np.ndarray:
    """The tensor in the bytes; what they claim to hold must be what is there, or numpy would make room for it."""
    try:
        stream = BytesIO(array.data)
        version = np.lib.format.read_magic(stream)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        with warnings.catch_warnings(action="ignore"):  # of headers that Python 2 wrote
            shape, _, dtype = header(stream)
            claimed = math.prod(shape) * dtype.itemsize
            if dtype.hasobject or claimed != len(array.data) - stream.tell():
                text = f"the bytes of {name!r:.60} are not the {dtype!s:.60} {shape!s:.60} that they say"
                raise _Unfit("OS514", text)
            return np.asarray(array.numpy())
    except _Unfit:
        raise
    except Exception as error:
        raise _Unfit("OS514", f"the bytes of {name!r:.60} are no array of numpy") from error


def _alike(read: Read) -> None:
    """Refuse replies whose records or metrics are named otherwise than most: Flower's strategies raise on them.

    Where no form is that of more than half, none is elected, and all are refused: it might be the attackers'.
    """
    forms = {node: _form(message) for node, message in read.messages.items()}
    if not forms:
        return
    usual, most = Counter(forms.values()).most_common(1)[0]
    elected = 2 * most > len(forms)
    read.form = usual if elected else read.form
    for node, form in forms.items():
        if form != usual or not elected:
            del read.messages[node]
            read.tensors.pop(node, None)
            text = _difference(form, usual) if elected else "no form of records and metrics is that of more than half"
            read.refused[node] = Reason("OS515", text)


def _form(message: Message) -> Form:
    content = message.content
    metrics_name, metrics = next(iter(content.metric_records.items()))
    kinds = sorted((key, len(value) if isinstance(value, list) else None) for key, value in metrics.items())
    return next(iter(content.array_records), ""), metrics_name, tuple(kinds)


def _difference(form: Form, usual: Form) -> str:
    if form[:2] != usual[:2]:
        return f"its records are called {form[:2]!r:.120}, those of most {usual[:2]!r:.120}"
    own, others = set(form[2]), set(usual[2])
    more, less = sorted(name for name, _ in own - others), sorted(name for name, _ in others - own)
    return f"its metrics are unlike those of most: {more!r:.120} in place of {less!r:.120}"
