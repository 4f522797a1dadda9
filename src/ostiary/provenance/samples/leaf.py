"""What one sample is: id, digest of its content, label and source, as a leaf of a Merkle tree over the set."""

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

from ostiary.core.errors import DataError
from ostiary.provenance.manifest import LEAF, NODE, ROOT, merkle_root

DOMAIN = b"ostiary samples v1\x00"
SAMPLES = "ostiarySamplesV1"
"""The name of the root of a set among a subject's digests."""
DIGEST_BYTES = 32
MAX_ID = 4096
MAX_NAME = 1024
"""Bytes of an id, and of a label or a source."""
BLOCK = 1024
"""Leaves that are joined at once; a power of two, so that they are a whole subtree."""

Kind = Literal["file", "array", "text", "talk"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What contents are digests of: the bytes of an encoded file, an array with its type and shape, a text in UTF-8, a
prompt with its answer."""


class Sample(NamedTuple):
    """One sample: `content` are the 32 bytes of its digest, `label` is None where it has none.

    `source` says where it came from; None only where data were read that do not tell it.
    """

    id: str
    content: bytes
    label: str | None
    source: str | None


def content_of_bytes(data: bytes | memoryview) -> bytes:
    """The content digest of an encoded image or a text in UTF-8: the SHA-256 of these bytes, as other tools say it.

    Bytes as stored, not what they decode to: decoders differ, and a signature must not depend on one.
    """
    return hashlib.sha256(data).digest()


def content_of_array(dtype: str, shape: Sequence[int], data: bytes | memoryview) -> bytes:
    """The content digest of an array: its type as NumPy writes it, its shape, and its bytes in C order."""
    return hashlib.sha256(array_prefix(dtype, shape) + data).digest()


def array_prefix(dtype: str, shape: Sequence[int]) -> bytes:
    """What stands before the bytes of an array of one type and shape when it is digested."""
    return DOMAIN + framed(b"array") + framed(dtype.encode()) + framed("x".join(map(str, shape)).encode())


def content_of_talk(prompt: str, answer: str) -> bytes:
    """The content digest of a prompt with its answer, each with its length before it."""
    return hashlib.sha256(DOMAIN + framed(b"talk") + framed(prompt.encode()) + framed(answer.encode())).digest()


def leaf_prefix(kind: Kind) -> bytes:
    """What every leaf of a set begins with."""
    return LEAF + DOMAIN + framed(kind.encode())


def label_frame(label: str | None) -> bytes:
    """A label as it stands in a leaf: no label is something else than an empty one."""
    return b"\x00" if label is None else b"\x01" + framed(label.encode())


def leaf_of(kind: Kind, sample: Sample) -> bytes:
    """The leaf of one sample."""
    return hashlib.sha256(
        b"".join(
            (
                leaf_prefix(kind),
                framed(sample.id.encode()),
                framed(sample.content),
                label_frame(sample.label),
                framed((sample.source or "").encode()),
            )
        )
    ).digest()


def framed(part: bytes) -> bytes:
    """Bytes with their length before them."""
    return len(part).to_bytes(8, "big") + part


class Tree:
    """The Merkle tree hash of RFC 6962 over leaves that come one by one; holds no more than `BLOCK` of them."""

    def __init__(self) -> None:
        self.count = 0
        self._leaves: list[bytes] = []
        self._whole: list[tuple[int, bytes]] = []

    def add(self, leaf: bytes) -> None:
        """Add the next leaf."""
        self._leaves.append(leaf)
        self.count += 1
        if len(self._leaves) == BLOCK:
            self._push(BLOCK, merkle_root(self._leaves))
            self._leaves.clear()

    def hash(self) -> bytes:
        """The tree hash so far; of no leaves, the SHA-256 of nothing."""
        found = merkle_root(self._leaves) if self._leaves or not self._whole else None
        for _, node in reversed(self._whole):
            found = node if found is None else parent(node, found)
        assert found is not None  # noqa: S101 - there are leaves, or whole subtrees, or the hash of nothing
        return found

    def root(self) -> bytes:
        """The 32 bytes that stand for the set: the tree hash with the number of leaves, under a domain of its own."""
        return root_of(self.count, self.hash())

    def _push(self, size: int, node: bytes) -> None:
        while self._whole and self._whole[-1][0] == size:
            node = parent(self._whole.pop()[1], node)
            size *= 2
        self._whole.append((size, node))


def root_of(count: int, tree_hash: bytes) -> bytes:
    """The root of a set of `count` samples."""
    return hashlib.sha256(ROOT + DOMAIN + count.to_bytes(8, "big") + tree_hash).digest()


def parent(left: bytes, right: bytes) -> bytes:
    """The node above two nodes."""
    return hashlib.sha256(NODE + left + right).digest()


def beside(index: int, count: int) -> Iterator[tuple[int, int, bool]]:
    """The subtrees whose hashes prove leaf `index` of `count`, from the leaf up: first, past the last, stands left."""

    def walk(low: int, high: int) -> list[tuple[int, int, bool]]:
        if high - low == 1:
            return []
        middle = low + (1 << (high - low - 1).bit_length() - 1)
        if index < middle:
            return [*walk(low, middle), (middle, high, False)]
        return [*walk(middle, high), (low, middle, True)]

    return iter(walk(0, count))


def odd(text: str, limit: int) -> str | None:
    """What is wrong with an id, a label or a source; None when nothing is.

    Empty, half a character, longer than `limit` bytes, or with control characters, which could rewrite what a terminal
    shows or end a line in a file.
    """
    if text.isascii() and text.isprintable():
        return None if 0 < len(text) <= limit else "it is empty" if not text else f"it has more than {limit} bytes"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "it holds half a character"
    if size > limit:
        return f"it has more than {limit} bytes"
    if not text.isprintable() and any(unicodedata.category(letter) in {"Cc", "Zl", "Zp"} for letter in text):
        return "it holds control characters"
    return None if text else "it is empty"


def check_name(text: str, what: str, limit: int = MAX_NAME) -> str:
    """The text of an id, a label or a source; raises DataError for one that is odd."""
    if problem := odd(text, limit):
        raise DataError(
            f"{text[:80]!a} is no {what}: {problem}", hint=f"a {what} is one line of text of at most {limit} bytes"
        )
    return text
