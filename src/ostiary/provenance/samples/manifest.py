r"""The manifest of a data set as a file: a head, one record for each sample in the order of ids, and the root.

    "ostiary samples 1\n" | length of the head, 4 bytes | head as JSON | records | root, 32 bytes

A record is the length of the id (2 bytes), the id in UTF-8, 32 bytes of content digest, and the numbers of its label
and source in the lists of the head (4 bytes each, big end first; a label of all ones is none). Both lists are sorted
and hold nothing that no sample has, so that one set has one file. Files are written and read as a stream.
"""

import hashlib
import os
import stat
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, NoReturn

from pydantic import Field, ValidationError

from ostiary.core.columns import MAX_CLASSES, Part
from ostiary.core.errors import ConfigError, DataError, FormatError
from ostiary.core.files import atomic
from ostiary.core.records import Frozen
from ostiary.provenance import strict
from ostiary.provenance.files import read_up_to, shown
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.samples.leaf import (
    DIGEST_BYTES,
    MAX_ID,
    MAX_NAME,
    Kind,
    Sample,
    Tree,
    check_name,
    framed,
    label_frame,
    leaf_prefix,
    odd,
)
from ostiary.provenance.samples.sorting import Sorted

MAGIC = b"ostiary samples 1\n"
MAX_HEAD = 32 * 2**20
MAX_SOURCES = 100_000
CHUNK = 2**20
NO_LABEL = 2**32 - 1
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""Without O_NONBLOCK, opening a named pipe would wait for a writer for ever."""
_LENGTH = struct.Struct(">H")
_NUMBERS = struct.Struct(">II")
_FIXED = DIGEST_BYTES + _NUMBERS.size
MAX_RECORD = _LENGTH.size + MAX_ID + _FIXED

Record = tuple[bytes, bytes, int, int]
"""Id, content digest, and the numbers of label and source."""


class About(Frozen):
    """What is known of a set before its samples are: `sourceField` is the column that tells their sources."""

    name: strict.Name
    kind: Kind
    part: Part = "train"
    sourceField: Annotated[str, Field(min_length=1, max_length=MAX_NAME)] | None = None  # noqa: N815 - JSON's habit


class Head(About):
    """The head of a manifest; a sample's label and source are numbers in these lists."""

    count: Annotated[int, Field(ge=1, lt=2**40)]
    labels: Annotated[tuple[str, ...], Field(max_length=MAX_CLASSES)]
    sources: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_SOURCES)]


@dataclass(frozen=True, slots=True)
class Summary:
    """A manifest that was written or read to its end: `sha256` is that of the file.

    `labels` and `sources` say how many samples have each; samples without a label are in neither.
    """

    head: Head
    root: bytes
    sha256: bytes
    labels: dict[str, int]
    sources: dict[str, int]


def about_set(name: str, kind: Kind, part: Part, source_field: str | None) -> About:
    """The `About` of a set. Raises ConfigError for a name that cannot be signed."""
    try:
        return About(name=name, kind=kind, part=part, sourceField=source_field)
    except ValidationError as error:
        raise ConfigError(
            f"{name[:200]!a} is no name of a set, or the column none", hint="a name without slashes or line ends"
        ) from error


def is_manifest(path: Path | str) -> bool:
    """Whether a file begins as a manifest does; what cannot be read does not."""
    try:
        return read_up_to(Path(path), len(MAGIC))[: len(MAGIC)] == MAGIC
    except (OSError, FormatError):
        return False


def write_manifest(
    path: Path | str, about: About, samples: Iterable[Sample], *, on_sample: Callable[[int], None] | None = None
) -> Summary:
    """Write the manifest of `samples`, in any order, to a new file; what tells no source is from the set itself.

    Holds no more than `sorting.RUN` of them in memory; `on_sample` hears how many were read. Raises DataError for no
    sample at all, an id given twice, and an odd id, label or source; OutputError when the file exists or cannot be
    written, in which case nothing is left under its name.
    """
    path = Path(path)
    labels, sources = _Numbers("label", MAX_CLASSES), _Numbers("source", MAX_SOURCES)
    rows = Sorted(_entries(samples, about.name, labels, sources, on_sample or (lambda count: None)))
    try:
        if not len(rows):
            raise DataError(f"'{about.name}' has no samples", hint="give a set with at least one")
        head = Head(
            **about.model_dump(),
            count=len(rows),
            labels=tuple(sorted(labels.found)),
            sources=tuple(sorted(sources.found)),
        )
        with atomic(path) as temporary, temporary.open("xb") as stream:
            summary = _write(stream, head, _merged(rows, labels.order(), sources.order()))
            stream.flush()
            os.fsync(stream.fileno())
        return summary
    finally:
        rows.close()


class SampleManifest:
    """A manifest file. Its head is read at once; samples are only to be believed once all of them were read.

    Raises FormatError when it is missing or unreadable, Refused (OS751) when it is no manifest.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.where = shown(self.path.name)
        with self._opened() as stream:
            self._start, self.head = self._read_head(stream)
            size = os.fstat(stream.fileno()).st_size
        least = self._start + self.head.count * (_LENGTH.size + 1 + _FIXED) + DIGEST_BYTES
        if size < least:
            self._refuse(f"it has {size} bytes, at least {least} are needed for {self.head.count} samples")

    def records(self, *, done: Callable[[Summary], None] | None = None) -> Iterator[Record]:
        """Every sample in the order of ids; once the last is there, `done` hears what they come to.

        Raises Refused: damaged or truncated (OS751), an id twice or out of order (OS752), or, after the last one, when
        the root is not that of the samples (OS753). Until then nothing read has been proved to belong together.
        """
        head, tree, sha = self.head, Tree(), hashlib.sha256()
        leaf = leaf_maker(head)
        labels, sources = [0] * len(head.labels), [0] * len(head.sources)
        with self._opened() as stream:
            sha.update(stream.read(self._start))
            pieces = _Pieces(stream, sha)
            before = b""
            for _ in range(head.count):
                record = self._next(pieces)
                if record[0] <= before:
                    text = f"{shown(record[0].decode())} stands after {shown(before.decode())}"
                    raise Refused([Reason("OS752", self.where, text)])
                before = record[0]
                tree.add(leaf(record))
                if record[2] != NO_LABEL:
                    labels[record[2]] += 1
                sources[record[3]] += 1
                yield record
            end = pieces.rest(DIGEST_BYTES + 1)
        if len(end) != DIGEST_BYTES:
            self._refuse("it is truncated, or goes on after its last sample")
        if tree.root() != end:
            raise Refused([Reason("OS753", self.where, "its root is not that of its samples")])
        if not all(labels) or not all(sources):
            self._refuse("its head names a label or a source that no sample has")
        if done is not None:
            counts = dict(zip(head.labels, labels, strict=True)), dict(zip(head.sources, sources, strict=True))
            done(Summary(head, end, sha.digest(), *counts))

    def samples(self, *, done: Callable[[Summary], None] | None = None) -> Iterator[Sample]:
        """As `records`, with ids, labels and sources as text."""
        labels, sources = self.head.labels, self.head.sources
        for identity, content, label, source in self.records(done=done):
            yield Sample(identity.decode(), content, None if label == NO_LABEL else labels[label], sources[source])

    def summary(self) -> Summary:
        """Read all of it and say what it comes to. Raises as `records`."""
        found: list[Summary] = []
        for _ in self.records(done=found.append):
            pass
        return found[0]

    def _opened(self) -> IO[bytes]:
        try:
            handle = os.open(self.path, _READ)
        except OSError as error:
            raise FormatError(
                f"cannot read the manifest '{self.path}': {error.strerror}", hint="check the path"
            ) from error
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise FormatError(f"cannot read the manifest '{self.path}': no regular file", hint="give the file itself")
        return os.fdopen(handle, "rb")

    def _read_head(self, stream: IO[bytes]) -> tuple[int, Head]:
        begin = stream.read(len(MAGIC) + 4)
        if not begin.startswith(MAGIC) or len(begin) < len(MAGIC) + 4:
            self._refuse("it does not begin as `ostiary manifest make` writes it")
        size = int.from_bytes(begin[len(MAGIC) :], "big")
        if size > MAX_HEAD:
            self._refuse(f"its head has {size} bytes, more than {MAX_HEAD}")
        data = stream.read(size)
        try:
            head = Head.model_validate_json(data, strict=True)
        except ValidationError as error:
            self._refuse(f"its head is ill-formed: {strict.first_error(error)}")
        # One text for one head: what another reader could take for something else is refused.
        if strict.canonical(head.model_dump()) != data:
            self._refuse("its head is not written in the one form")
        for names in (head.labels, head.sources):
            if list(names) != sorted(set(names)) or any(odd(name, MAX_NAME) for name in names):
                self._refuse("its labels or sources are not sorted, doubled or no lines of text")
        return len(begin) + size, head

    def _next(self, pieces: "_Pieces") -> Record:
        buffer, at = pieces.buffer, pieces.at
        if len(buffer) - at < MAX_RECORD:
            buffer, at = pieces.more()
        try:
            end = at + 2 + _LENGTH.unpack_from(buffer, at)[0]
            label, source = _NUMBERS.unpack_from(buffer, end + DIGEST_BYTES)
            identity = buffer[at + 2 : end]
            if problem := odd(identity.decode(), MAX_ID):
                self._refuse(f"an id in it is none: {problem}")
        except (struct.error, UnicodeDecodeError):
            self._refuse("it is truncated or damaged")
        if (label >= len(self.head.labels) and label != NO_LABEL) or source >= len(self.head.sources):
            self._refuse(f"sample {shown(identity.decode())} has a label or a source that its head does not name")
        pieces.at = end + _FIXED
        return identity, buffer[end : end + DIGEST_BYTES], label, source

    def _refuse(self, text: str) -> NoReturn:
        raise Refused([Reason("OS751", self.where, text)], hint="get the manifest again, or make it anew")


class _Pieces:
    """A stream a piece at a time; what was read is digested."""

    def __init__(self, stream: IO[bytes], sha: "hashlib._Hash") -> None:
        self.buffer, self.at = b"", 0
        self._stream, self._sha = stream, sha

    def more(self) -> tuple[bytes, int]:
        """The next piece after what is left of the last one."""
        piece = self._stream.read(CHUNK)
        self._sha.update(piece)
        self.buffer, self.at = self.buffer[self.at :] + piece, 0
        return self.buffer, self.at

    def rest(self, limit: int) -> bytes:
        """What is left, as far as `limit`."""
        while (left := len(self.buffer) - self.at) < limit:
            if len(self.more()[0]) == left:
                break
        return self.buffer[self.at : self.at + limit]


class _Numbers:
    """Names in the order in which they were met, each checked once."""

    def __init__(self, what: str, most: int) -> None:
        self.found: dict[str, int] = {}
        self._what, self._most = what, most

    def number(self, name: str) -> int:
        """The number of a new name. Raises DataError for one that is odd, or one too many."""
        check_name(name, self._what)
        if len(self.found) == self._most:
            raise DataError(f"more than {self._most} different {self._what}s")
        return self.found.setdefault(name, len(self.found))

    def order(self) -> list[int]:
        """The place of each, by its number, when all are sorted."""
        place = {name: at for at, name in enumerate(sorted(self.found))}
        return [place[name] for name in self.found]


def _entries(
    samples: Iterable[Sample], name: str, labels: _Numbers, sources: _Numbers, hear: Callable[[int], None]
) -> Iterator[tuple[bytes, bytes]]:
    pack, label_of, source_of = _NUMBERS.pack, labels.found.get, sources.found.get
    for number, (identity, content, label, source) in enumerate(samples):
        if odd(identity, MAX_ID):
            check_name(identity, "id", MAX_ID)
        origin = name if source is None else source
        # Nearly all names were met before: a look into the table, and a call for a new one alone.
        at, place = NO_LABEL if label is None else label_of(label), source_of(origin)
        if at is None and label is not None:
            at = labels.number(label)
        if place is None:
            place = sources.number(origin)
        yield identity.encode(), content + pack(at, place)
        if number % 1024 == 1023:
            hear(1024)


def _merged(rows: Sorted, labels: list[int], sources: list[int]) -> Iterator[Record]:
    before = b""
    for identity, rest in rows:
        if identity == before:
            raise DataError(
                f"the id {identity.decode()!a} names two samples", hint="give every sample an id of its own"
            )
        before = identity
        label, source = _NUMBERS.unpack_from(rest, DIGEST_BYTES)
        yield identity, rest[:DIGEST_BYTES], NO_LABEL if label == NO_LABEL else labels[label], sources[source]


def leaf_maker(head: Head) -> Callable[[Record], bytes]:
    """What makes a record's leaf, with all that many share made once."""
    start, size = leaf_prefix(head.kind), DIGEST_BYTES.to_bytes(8, "big")
    labels = [label_frame(name) for name in head.labels]
    sources = [framed(name.encode()) for name in head.sources]
    none = label_frame(None)

    def leaf(record: Record) -> bytes:
        identity, content, label, source = record
        with_label = none if label == NO_LABEL else labels[label]
        length = len(identity).to_bytes(8, "big")
        return hashlib.sha256(b"".join((start, length, identity, size, content, with_label, sources[source]))).digest()

    return leaf


def _write(stream: IO[bytes], head: Head, records: Iterable[Record]) -> Summary:
    text = strict.canonical(head.model_dump())
    if len(text) > MAX_HEAD:
        raise DataError(f"the names of labels and sources take {len(text)} bytes, more than {MAX_HEAD}")
    sha, tree, leaf = hashlib.sha256(), Tree(), leaf_maker(head)
    labels, sources = [0] * len(head.labels), [0] * len(head.sources)
    pending = [MAGIC, len(text).to_bytes(4, "big"), text]

    def drain() -> None:
        piece = b"".join(pending)
        sha.update(piece)
        stream.write(piece)
        pending.clear()

    for record in records:
        identity, content, label, source = record
        tree.add(leaf(record))
        pending += (_LENGTH.pack(len(identity)), identity, content, _NUMBERS.pack(label, source))
        if label != NO_LABEL:
            labels[label] += 1
        sources[source] += 1
        if len(pending) > 16384:
            drain()
    root = tree.root()
    pending.append(root)
    drain()
    counts = dict(zip(head.labels, labels, strict=True)), dict(zip(head.sources, sources, strict=True))
    return Summary(head, root, sha.digest(), *counts)
