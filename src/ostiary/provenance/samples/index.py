"""What this machine knows of data sets and trainings: signed statements, manifests, and an index of samples in SQLite.

    FOLDER/statements/SHA256.json    each statement as it was signed, under the digest of its bytes
    FOLDER/statements.txt            these digests, so that one that went missing is noticed
    FOLDER/sets/ROOT.manifest        the manifest of a set that a statement in the folder is about
    FOLDER/sets/ROOT.SHA256.sqlite   its samples by id and by content, under the digest of the file

Statements and manifests are the truth; the databases are made of them, never changed, and made again when one is
missing or not the file that its name says. Every file is written whole and renamed, so that an end at any moment leaves
what was there before.
"""

import contextlib
import hashlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from ostiary.core.errors import OutputError
from ostiary.core.files import atomic, sha256_file, write_text
from ostiary.provenance.attested import MAX_STATEMENT
from ostiary.provenance.files import read_small
from ostiary.provenance.memory import state_folder
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.samples.leaf import Sample
from ostiary.provenance.samples.manifest import SampleManifest, Summary
from ostiary.provenance.samples.statements import SetSaid, TrainingSaid, check_stated, hear
from ostiary.provenance.statement import is_digest
from ostiary.provenance.trust import Trust
from ostiary.provenance.verify import remember_store

_TABLE = (
    "CREATE TABLE sample (id TEXT PRIMARY KEY, content BLOB NOT NULL, label TEXT, source TEXT NOT NULL) WITHOUT ROWID"
)
_SELECT = "SELECT id, content, label, source FROM sample WHERE "


class Known(NamedTuple):
    """What statements in an index say, as far as they are trusted now; `uncounted` says why others are not."""

    sets: tuple[SetSaid, ...]
    trainings: tuple[TrainingSaid, ...]
    uncounted: tuple[Reason, ...]


class Index:
    """The folder of an index, by default `samples` in the folder of `memory`; it is made when something is added."""

    def __init__(self, folder: Path | str | None = None) -> None:
        self.folder = Path(folder) if folder is not None else state_folder() / "samples"
        self._statements, self._sets = self.folder / "statements", self.folder / "sets"
        self._ledger = self.folder / "statements.txt"
        self.mended: list[str] = []
        """Roots of sets whose database was not the file that its name says, and was made again by a question."""

    def add_statement(
        self, data: bytes, trust: Trust, where: str, *, now: datetime | None = None, state: Path | None = None
    ) -> SetSaid | TrainingSaid:
        """Verify a statement and keep it. Raises Refused as `hear`, OutputError when it cannot be kept."""
        said = hear(data, trust, where, now=now, state=state)
        name = hashlib.sha256(data).hexdigest()
        self._made()
        with atomic(self._statements / f"{name}.json", replace=True) as temporary:
            _write(temporary, data)
        names = sorted({*self._listed(), *self._present()})
        write_text(self._ledger, "".join(f"{one}\n" for one in names), replace=True)
        return said

    def add_manifest(
        self, path: Path | str, trust: Trust, *, now: datetime | None = None, state: Path | None = None
    ) -> Summary:
        """Keep the manifest of a set that a trusted statement is about, and index its samples.

        Raises Refused as `SampleManifest.records`, and when no trusted statement is about it, or one says something
        else of it (OS754).
        """
        manifest = SampleManifest(path)
        summary = manifest.summary()
        root = summary.root.hex()
        said = [one for one in self.known(trust, now=now, state=state).sets if one.root == root]
        if not said:
            text = f"no trusted statement here is about the set {root[:12]}"
            raise Refused([Reason("OS754", manifest.where, text)], hint="add the statement that its owner signed first")
        for one in said:
            check_stated(one, summary, manifest.where)
        copy = self._sets / f"{root}.manifest"
        with atomic(copy, replace=True) as temporary:
            shutil.copyfile(manifest.path, temporary)
            _synced(temporary)
        self._build(root)
        return summary

    def known(self, trust: Trust, *, now: datetime | None = None, state: Path | None = None) -> Known:
        """What all statements say, each of them verified now. One that is missing or altered counts as untrusted.

        Raises Refused when the trust store itself does not hold: what `memory` says of it.
        """
        remember_store(trust, now or datetime.now(UTC), state)
        # Once is enough for all statements: it is written down each time.
        trust = replace(trust, digest=None)
        sets, trainings, uncounted = list[SetSaid](), list[TrainingSaid](), list[Reason]()
        present = self._present()
        for name in sorted({*self._listed(), *present}):
            where = f"statement {name[:12]}"
            if name not in present:
                uncounted.append(Reason("OS701", where, "it was added to this index and is missing"))
                continue
            data = read_small(self._statements / f"{name}.json", 2 * MAX_STATEMENT)
            if hashlib.sha256(data).hexdigest() != name:
                uncounted.append(Reason("OS701", where, "its bytes are not those that were added"))
                continue
            try:
                said = hear(data, trust, where, now=now, state=state)
            except Refused as error:
                uncounted += error.reasons
                continue
            if isinstance(said, SetSaid):
                sets.append(said)
            else:
                trainings.append(said)
        return Known(tuple(sets), tuple(trainings), tuple(uncounted))

    def has_samples(self, root: str) -> bool:
        """Whether the samples of a set can be looked for."""
        return (self._sets / f"{root}.manifest").is_file()

    def by_id(self, root: str, identity: str) -> Sample | None:
        """The sample of a set with this id. Raises Refused when the kept manifest is damaged."""
        return next(self._select(root, "id = ?", identity), None)

    def by_content(self, root: str, content: bytes) -> list[Sample]:
        """The samples of a set with this content. Raises as `by_id`."""
        return list(self._select(root, "content = ?", content))

    def rebuild(self) -> list[str]:
        """Make every database anew from the manifests; gives the roots. Raises as `by_id`."""
        self._made()
        for entry in self._sets.iterdir():
            if entry.name.startswith("."):  # what a process that was killed left behind
                shutil.rmtree(entry, ignore_errors=True)
        roots = sorted(one.stem for one in self._sets.glob("*.manifest") if is_digest(one.stem))
        for root in roots:
            self._build(root)
        return roots

    def _select(self, root: str, where: str, value: object) -> Iterator[Sample]:
        address = f"file:{quote(str(self._database(root).resolve()))}?mode=ro&immutable=1"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
            for row in database.execute(f"{_SELECT}{where} ORDER BY id", (value,)):
                yield Sample(*row)

    def _database(self, root: str) -> Path:
        """The database of a set; one that is missing or damaged is made again."""
        for path in sorted(self._sets.glob(f"{root}.*.sqlite")):
            if sha256_file(path) == path.suffixes[-2][1:]:
                return path
        path = self._build(root)
        self.mended.append(root)
        return path

    def _build(self, root: str) -> Path:
        manifest = SampleManifest(self._sets / f"{root}.manifest")
        summaries: list[Summary] = []
        holder = Path(tempfile.mkdtemp(prefix=".build.", dir=self._sets))
        try:
            made = holder / "samples.sqlite"
            with contextlib.closing(sqlite3.connect(made)) as database:
                # Nobody else sees the file before it is whole, and one that is not is thrown away.
                database.execute("PRAGMA journal_mode = OFF")
                database.execute("PRAGMA synchronous = OFF")
                database.execute(_TABLE)
                rows = manifest.samples(done=summaries.append)
                database.executemany("INSERT INTO sample VALUES (?, ?, ?, ?)", rows)
                database.execute("CREATE INDEX by_content ON sample (content)")
                database.commit()
            if (found := summaries[0].root.hex()) != root:
                text = f"the kept manifest of {root[:12]} is that of {found[:12]}"
                raise Refused([Reason("OS753", f"{root[:12]}.manifest", text)])
            _synced(made)
            target = self._sets / f"{root}.{sha256_file(made)}.sqlite"
            os.replace(made, target)
        except sqlite3.Error as error:
            raise OutputError(
                f"cannot index '{manifest.where}': {error}", hint="free space, or name an --index"
            ) from error
        finally:
            shutil.rmtree(holder, ignore_errors=True)
        for old in self._sets.glob(f"{root}.*.sqlite"):
            if old != target:
                old.unlink(missing_ok=True)
        return target

    def _made(self) -> None:
        try:
            for folder in (self._statements, self._sets):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot keep '{self.folder}': {error.strerror}", hint="name another --index") from error

    def _present(self) -> set[str]:
        return {one.stem for one in self._statements.glob("*.json") if is_digest(one.stem)}

    def _listed(self) -> set[str]:
        if not self._ledger.is_file():
            return set()
        return {line for line in self._ledger.read_text(errors="replace").split() if is_digest(line)}


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _synced(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
