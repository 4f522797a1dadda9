"""Two sets sample by sample: what was added, removed, altered, relabelled or came from elsewhere."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ostiary.core.errors import ConfigError
from ostiary.provenance.refusal import Reason
from ostiary.provenance.samples.leaf import Sample
from ostiary.provenance.samples.manifest import NO_LABEL, Record, SampleManifest, Summary
from ostiary.provenance.samples.reading import Reading, read_samples
from ostiary.provenance.samples.sorting import Sorted

OnSample = Callable[[int], None]
What = Literal["added", "removed", "altered", "relabelled", "moved"]
WHATS: tuple[What, ...] = get_args(What)
CODES: dict[What, str] = {
    "altered": "OS755",
    "removed": "OS756",
    "added": "OS756",
    "relabelled": "OS757",
    "moved": "OS758",
}


_ODD = "backslashreplace"
"""Half a character in data at hand is told as a difference: no manifest holds one."""


@dataclass(frozen=True, slots=True)
class Change:
    """What differs in one sample: digests in hex where its content does, labels or sources where these do.

    A sample that differs in two ways makes two changes. `before` is None for one that was added or had no label,
    `after` for one that was removed or has none.
    """

    what: What
    id: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        words = {
            "added": "was added",
            "removed": "is missing",
            "altered": f"has content {(self.after or '')[:12]}, not {(self.before or '')[:12]}",
            "relabelled": f"has {_words(self.after)}, not {_words(self.before)}",
            "moved": f"is from {self.after!r}, not {self.before!r}",
        }
        return words[self.what]

    def reason(self) -> Reason:
        """The change as a reason to refuse."""
        return Reason(CODES[self.what], ascii(self.id)[1:-1], str(self))


def differences(before: SampleManifest, after: SampleManifest) -> Iterator[Change]:
    """What differs from one manifest to another, in the order of ids; both are read once, as a stream.

    Raises ConfigError for contents of two kinds, which cannot be held against each other, and as
    `SampleManifest.records`; nothing told before the last sample was read is to be believed.
    """
    _alike(before, after.head.kind)
    yield from changes(before.samples(), after.samples())


def against_data(
    manifest: SampleManifest,
    data: Path | str,
    *,
    on_sample: OnSample = lambda count: None,
    done: Callable[[Summary], None] | None = None,
) -> Iterator[Change]:
    """What differs from a manifest to the data at hand, which are read whole before the first difference is told.

    Part and column of sources are those that the manifest states; where it states no column the data do not tell
    their sources, and these are not compared. `done` hears what the manifest came to, after the last difference.
    Raises ConfigError for contents of another kind, and as `read_samples` and `SampleManifest.records`.
    """
    head = manifest.head
    reading = read_samples(data, head.part, source_field=head.sourceField)
    _alike(manifest, reading.kind)
    rows = Sorted(_packed(reading, on_sample))
    try:
        yield from changes(manifest.samples(done=done), map(_unpacked, rows))
    finally:
        rows.close()


def changes(before: Iterable[Sample], after: Iterable[Sample]) -> Iterator[Change]:
    """What differs between two streams of samples, each in the order of ids. A source of None is not compared."""
    left, right = iter(before), iter(after)
    old, new = next(left, None), next(right, None)
    while old is not None or new is not None:
        # The order of characters is that of their bytes in UTF-8.
        if new is None or (old is not None and old.id < new.id):
            assert old is not None  # noqa: S101 - one of both is there
            yield Change("removed", old.id, old.content.hex(), None)
            old = next(left, None)
        elif old is None or new.id < old.id:
            yield Change("added", new.id, None, new.content.hex())
            new = next(right, None)
        else:
            if old != new:
                yield from _both(old, new)
            old, new = next(left, None), next(right, None)


def _both(old: Sample, new: Sample) -> Iterator[Change]:
    if old.content != new.content:
        yield Change("altered", old.id, old.content.hex(), new.content.hex())
    if old.label != new.label:
        yield Change("relabelled", old.id, old.label, new.label)
    if old.source != new.source and None not in (old.source, new.source):
        yield Change("moved", old.id, old.source, new.source)


def _alike(manifest: SampleManifest, kind: str) -> None:
    if manifest.head.kind != kind:
        raise ConfigError(
            f"'{manifest.where}' is of a set whose contents are of the kind {manifest.head.kind}, the other's {kind}",
            hint="an image file and the array it decodes to have different digests: compare like with like",
        )


def _packed(reading: Reading, hear: OnSample) -> Iterator[tuple[bytes, bytes]]:
    for number, sample in enumerate(reading.samples):
        label = b"\x00" if sample.label is None else b"\x01" + sample.label.encode(errors=_ODD)
        source = b"\x00" if sample.source is None else b"\x01" + sample.source.encode(errors=_ODD)
        size = len(label).to_bytes(4, "big")
        yield sample.id.encode(errors=_ODD)[:65535], sample.content + size + label + source
        if number % 1024 == 1023:
            hear(1024)


def _unpacked(entry: tuple[bytes, bytes]) -> Sample:
    identity, rest = entry
    end = 36 + int.from_bytes(rest[32:36], "big")
    return Sample(identity.decode(), rest[:32], _optional(rest[36:end]), _optional(rest[end:]))


def _optional(data: bytes) -> str | None:
    return None if data[:1] == b"\x00" else data[1:].decode()


def _words(label: str | None) -> str:
    return "no label" if label is None else f"the label {label!r}"


@dataclass(frozen=True, slots=True)
class Group:
    """Samples of one content: a conflict when they carry more than one label (none counts as one), else duplicates."""

    content: str
    samples: tuple[tuple[str, str | None], ...]

    @property
    def conflict(self) -> bool:
        """Whether one content has two labels."""
        return len({label for _, label in self.samples}) > 1


def repeated(manifest: SampleManifest) -> Iterator[Group]:
    """All contents that more than one sample has, in the order of their digests. Raises as `SampleManifest.records`.

    The manifest is read to its end first; memory holds no more than one group and `sorting.RUN` samples.
    """
    rows = Sorted(_by_content(manifest.records()))
    names = manifest.head.labels

    def group(content: bytes, found: list[tuple[bytes, int]]) -> Group:
        samples = ((one.decode(), None if label == NO_LABEL else names[label]) for one, label in found)
        return Group(content.hex(), tuple(samples))

    try:
        before, found = b"", list[tuple[bytes, int]]()
        for key, rest in rows:
            if key != before:
                if len(found) > 1:
                    yield group(before, found)
                before, found = key, []
            found.append((rest[4:], int.from_bytes(rest[:4], "big")))
        if len(found) > 1:
            yield group(before, found)
    finally:
        rows.close()


def _by_content(records: Iterable[Record]) -> Iterator[tuple[bytes, bytes]]:
    for identity, content, label, _ in records:
        yield content, label.to_bytes(4, "big") + identity
