"""From a sample to its sources, sets and models, and from a source to every model that learnt from it."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ostiary.core.files import sha256_file
from ostiary.provenance.refusal import Reason
from ostiary.provenance.samples.index import Index, Known
from ostiary.provenance.samples.leaf import MAX_ID, odd
from ostiary.provenance.samples.statements import TrainingSaid
from ostiary.provenance.statement import is_digest
from ostiary.provenance.trust import Revoked, Trust


@dataclass(frozen=True, slots=True)
class Place:
    """A sample as it stands in one set."""

    set: str
    root: str
    id: str
    content: str
    label: str | None
    source: str


@dataclass(frozen=True, slots=True)
class Named:
    """A set by name and root."""

    name: str
    root: str


@dataclass(frozen=True, slots=True)
class Reached:
    """A model, and what it was made of that led to it: names of sets, or of the model that it began with."""

    name: str
    root: str
    through: tuple[str, ...]
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found for a sample, a source or a root.

    `reasons` speak against what was reached: revoked (OS768), contradicted (OS767).
    `missing` says what the answer does not cover: statements that are not trusted (any more), sets without a statement
    or a manifest here. An answer with anything missing is not complete, whatever it found.
    """

    asked: str
    places: tuple[Place, ...]
    sets: tuple[Named, ...]
    models: tuple[Reached, ...]
    reasons: tuple[Reason, ...]
    missing: tuple[str, ...]


class Lineage:
    """The graph of sets and models as trusted statements in an index tell it at one moment."""

    def __init__(self, index: Index, trust: Trust, *, now: datetime | None = None, state: Path | None = None) -> None:
        self.index = index
        self.known: Known = index.known(trust, now=now, state=state)
        self._revoked = trust.store.revoked if trust.store else Revoked()
        self._sets = {one.root: one for one in self.known.sets}

    def trace(self, sample: str) -> Answer:
        """Where a sample is: by its id, by the SHA-256 of its content, or as a file with these bytes.

        Raises Refused when a kept manifest is damaged.
        """
        content = _content(sample)
        places: list[Place] = []
        missing = self._unsaid()
        for root, said in sorted(self._sets.items()):
            if not self.index.has_samples(root):
                missing.append(f"the manifest of the set '{said.what.name}' ({root[:12]}) is not here")
                continue
            found = [] if content is None else self.index.by_content(root, content)
            # The path of a file may be an id, too.
            own = self.index.by_id(root, sample) if odd(sample, MAX_ID) is None else None
            found += [own] if own is not None and own not in found else []
            places += [
                Place(said.what.name, root, one.id, one.content.hex(), one.label, one.source or "") for one in found
            ]
        return self._answer(sample, places, {one.root for one in places}, set(), missing)

    def impact(self, source: str) -> Answer:
        """Every model that learnt from a source of samples, or from a set or a model given by its root.

        A digest that is no root here is looked for as the content of a sample.
        """
        if not is_digest(source):
            # Of two statements that contradict each other, each is asked.
            roots = {said.root for said in self.known.sets if source in said.what.sources}
            return self._answer(source, [], roots, set(), self._unsaid())
        sets = {link.root for one in self.known.trainings for link in one.what.dataSets}
        bases = {link.root for one in self.known.trainings for link in one.what.bases}
        models = {one.root for one in self.known.trainings} | bases
        if source in sets | set(self._sets):
            return self._answer(source, [], {source}, set(), [])
        return self._answer(source, [], set(), {source}, []) if source in models else self.trace(source)

    def affected(self, root: str) -> list[Reason]:
        """What speaks against a model because of what it was made of, at any remove.

        A source, a set or a base model is revoked (OS768), or statements about one of them contradict each other
        (OS767). Where sources are revoked, a set that no statement here is about is a reason, too (OS768); where
        sources or sets are, so is a base model of which nobody says what it learnt from.
        """
        sets, models = self._made_of(root)
        reasons = [
            Reason("OS768", f"model {root[:12]}", f"it was made of the model {one[:12]}, which is revoked")
            for one in sorted(models - {root})
            if one in self._revoked.models
        ]
        for one, name in sorted(sets.items()):
            reasons += self._against(one, name)
        if self._revoked.sources or self._revoked.sets:
            told = {one.root for one in self.known.trainings}
            text = "nothing here says what the model {} learnt from, so that what is revoked cannot be ruled out"
            reasons += [
                Reason("OS768", f"model {root[:12]}", text.format(one[:12])) for one in sorted(models - {root} - told)
            ]
        return reasons + contradictions(self.known, {*sets, *models})

    def _against(self, root: str, name: str) -> list[Reason]:
        subject = f"set {name}"
        if root in self._revoked.sets:
            return [Reason("OS768", subject, f"the set {root[:12]} is revoked")]
        said = [one for one in self.known.sets if one.root == root]
        if not said and self._revoked.sources:
            text = f"nothing here says what {root[:12]} holds, so that revoked sources cannot be ruled out"
            return [Reason("OS768", subject, text)]
        gone = sorted({one for each in said for one in each.what.sources} & set(self._revoked.sources))
        return [Reason("OS768", subject, f"it holds samples from {one!r}, which is revoked") for one in gone]

    def _made_of(self, root: str) -> tuple[dict[str, str], set[str]]:
        """All sets (by root, with a name) and models that went into a model, itself among these."""
        sets: dict[str, str] = {}
        models, pending = {root}, [root]
        while pending:
            current = pending.pop()
            for one in (one for one in self.known.trainings if one.root == current):
                sets |= {link.root: link.name for link in one.what.dataSets}
                new = {link.root for link in one.what.bases} - models
                models |= new
                pending += new
        return sets, models

    def _answer(
        self, asked: str, places: Iterable[Place], sets: set[str], models: set[str], missing: Iterable[str]
    ) -> Answer:
        reached = self._reached(sets, models)
        named = {link.root: link.name for one in self.known.trainings for link in one.what.dataSets}
        named |= {root: said.what.name for root, said in self._sets.items()}
        reasons = [reason for root in sorted(sets) for reason in self._against(root, named[root])]
        for one in reached:
            reasons += self.affected(one.root)
        return Answer(
            asked,
            tuple(places),
            tuple(Named(named[root], root) for root in sorted(sets)),
            tuple(reached),
            tuple(dict.fromkeys([*reasons, *contradictions(self.known, sets)])),
            (*missing, *map(str, self.known.uncounted)),
        )

    def _unsaid(self) -> list[str]:
        """The sets that models learnt from and that no statement is about: what they hold is not known."""
        links = {link.root: link.name for one in self.known.trainings for link in one.what.dataSets}
        return [
            f"nothing here says what the set '{name}' ({root[:12]}) holds"
            for root, name in sorted(links.items())
            if root not in self._sets
        ]

    def _reached(self, sets: set[str], models: set[str]) -> list[Reached]:
        """Every model made of these sets or models, those nearest first."""
        order: list[str] = []
        led = set(models)
        while True:
            reached = (one for one in self.known.trainings if one.root not in order and _led(one, sets, led))
            new = {one.root: one.what.name for one in reached}
            if not new:
                break
            order += sorted(new, key=lambda root: (new[root], root))
            led |= set(new)
        found = []
        for root in order:
            said = [one for one in self.known.trainings if one.root == root and _led(one, sets, led)]
            through = sorted({name for one in said for name in _led(one, sets, led)})
            by = sorted({name for one in said for name in one.by})
            found.append(Reached(said[0].what.name, root, tuple(through), tuple(by)))
        return found


def _led(one: TrainingSaid, sets: set[str], models: set[str]) -> list[str]:
    """The names of what a model was made of that is among these."""
    return [link.name for link in one.what.dataSets if link.root in sets] + [
        link.name for link in one.what.bases if link.root in models
    ]


def affected(
    index: Index, model_root: str, trust: Trust, *, now: datetime | None = None, state: Path | None = None
) -> list[Reason]:
    """As `Lineage.affected`, for the model with this root."""
    return Lineage(index, trust, now=now, state=state).affected(model_root)


def contradictions(known: Known, roots: set[str] | None = None) -> list[Reason]:
    """Statements that cannot both be true (OS767), of all, or of those about `roots`.

    Two that say different things of one set; two sets under one name and version; two that say that one model was made
    of different things.
    """
    found: list[tuple[set[str], Reason]] = []
    about: dict[str, object] = {}
    versions: dict[tuple[str, int | None], str] = {}
    for said in known.sets:
        what, root = said.what, said.root
        subject = f"set {what.name}"
        holds = (what.kind, what.samples, what.labels, what.sources)
        if about.setdefault(root, holds) != holds:
            text = f"two statements say different things of {root[:12]}"
            found.append(({root}, Reason("OS767", subject, text)))
        other = root if what.version is None else versions.setdefault((what.name, what.version), root)
        if other != root:
            text = f"version {what.version} is {other[:12]} to one statement and {root[:12]} to another"
            found.append(({root, other}, Reason("OS767", subject, text)))
    for one in known.trainings:
        made = _made(one)
        if about.setdefault(one.root, made) != made:
            text = f"two statements say that {one.root[:12]} was made of different things"
            found.append(({one.root}, Reason("OS767", f"model {one.what.name}", text)))
    return list(dict.fromkeys(reason for told, reason in found if roots is None or told & roots))


def _made(one: TrainingSaid) -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(link.root for link in one.what.dataSets), frozenset(link.root for link in one.what.bases)


def _content(sample: str) -> bytes | None:
    """The digest that a text is, or that the file it names has; None for an id alone."""
    if is_digest(sample):
        return bytes.fromhex(sample)
    path = Path(sample)
    with contextlib.suppress(OSError):  # an id may be longer than a name of a file
        return bytes.fromhex(sha256_file(path)) if path.is_file() else None
    return None
