"""Models from the Hugging Face Hub, or from its cache: one commit, named in full, verified here and then loaded."""

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ostiary.core.errors import ConfigError, EndpointError, FormatError, MissingExtra
from ostiary.provenance.files import shown
from ostiary.provenance.loader import BOM, SCAN, SIGNATURE, Evidence, Loaded, load_verified
from ostiary.provenance.manifest import is_under
from ostiary.provenance.policy import Policy
from ostiary.provenance.refusal import Reason, Refused

BESIDE = tuple(f"model{suffix}" for suffix in (SIGNATURE, SCAN, BOM))
"""Names of what lies in the repository and speaks for the other files: it is no part of the model."""
REVISION = re.compile(r"[0-9a-f]{40}")
REPOSITORY = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
WRITTEN_BY_HUB = (".gitattributes",)
"""What the Hub itself puts into a repository, so that no producer signed it."""


def load_from_hub(
    repository: str,
    revision: str,
    policy: Policy | Path | str,
    *,
    online: bool = False,
    evidence: Evidence | None = None,
    name: str | None = None,
    ignore: Sequence[str] = WRITTEN_BY_HUB,
    cache: Path | str | None = None,
    endpoint: str | None = None,
) -> Loaded:
    """The model in a repository at one commit, by `ostiary.load` under a policy.

    `revision` is that commit, in 40 hex digits; a branch or a tag may be another model tomorrow. Files come from the
    cache of huggingface_hub (`cache`, by default its own), and are fetched, from `endpoint` if that is given, only when
    the caller says `online`. The rest is as in `load_snapshot`; `name` is by default the last part of `repository`.

    Raises Refused (OS735, and what `load_verified` raises), FormatError when the snapshot is not in the cache,
    EndpointError when it cannot be fetched, MissingExtra without huggingface_hub.
    """
    if not REPOSITORY.fullmatch(repository):
        raise ConfigError(f"'{repository}' is no repository", hint="give OWNER/NAME")
    require_commit(revision)
    folder = _snapshot(repository, revision, online=online, cache_dir=cache, endpoint=endpoint)
    if folder.name != revision:
        raise Refused([Reason("OS735", shown(revision), f"the snapshot at hand is that of {shown(folder.name)}")])
    name = name or repository.rpartition("/")[2]
    return _load(folder, policy, evidence, name, ignore, f"{repository}@{revision}")


def load_snapshot(
    folder: Path | str,
    policy: Policy | Path | str,
    *,
    name: str,
    evidence: Evidence | None = None,
    ignore: Sequence[str] = WRITTEN_BY_HUB,
) -> Loaded:
    """The model in a local snapshot, whose files may be links into the cache it lies in, by `load_verified`.

    What is loaded is a copy without links, which is gone when this returns; files in `ignore` are left out of it.
    `evidence` says where signature, scans and bill of materials lie, by default `model.sig`, `model.scan` and
    `model.bom` in the snapshot. `name` is that under which the model must be signed.

    Raises as `load_verified`, and Refused (OS702) for links that lead out of the cache.
    """
    return _load(Path(folder), policy, evidence, name, ignore, str(folder))


def _load(
    folder: Path,
    policy: Policy | Path | str,
    evidence: Evidence | None,
    name: str,
    ignore: Sequence[str],
    subject: str,
) -> Loaded:
    """As `load_snapshot`; the decision speaks of `subject`, since the copy is nowhere any more."""
    try:
        with without_links(folder, ignore=ignore) as copy:
            loaded = load_verified(copy, policy, evidence=evidence, name=name)
    except Refused as error:
        if error.decision is not None:
            error.decision = error.decision.model_copy(update={"subject": subject})
        raise
    return replace(loaded, decision=loaded.decision.model_copy(update={"subject": subject}))


def require_commit(revision: str) -> None:
    """Raises Refused (OS735) for anything but the 40 hex digits of a commit."""
    if not REVISION.fullmatch(revision):
        raise Refused(
            [Reason("OS735", shown(revision)[:80], "not the 40 hex digits of a commit")],
            hint="what a branch or a tag stands for may be other files tomorrow; give the commit that was reviewed",
        )


@contextmanager
def without_links(folder: Path, *, ignore: Sequence[str] = ()) -> Iterator[Path]:
    """A copy of a snapshot in which links of the cache are the files they lead to, for as long as the block runs.

    It is called `model`, and what speaks for it (`BESIDE`) lies beside it.
    Nothing is trusted of it: the copy is there to be verified. Raises FormatError when there is no such folder, Refused
    (OS702) for links to folders, to nothing, and to anything outside of the cache.
    """
    if not folder.is_dir():
        raise FormatError(f"no snapshot at '{folder}'", hint="give the folder of one commit")
    with TemporaryDirectory(prefix="ostiary-") as made:
        copy = Path(made) / "model"
        copy.mkdir()
        within = _cache_of(folder)
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if is_under(name, ignore):
                continue
            if path.is_dir() and not path.is_symlink():
                (copy / name).mkdir()
                continue
            target = path.resolve()
            if not target.is_file() or not target.is_relative_to(within):
                raise Refused([Reason("OS702", shown(name), "it leads to no file of the cache it lies in")])
            shutil.copyfile(target, (copy.parent if name in BESIDE else copy) / name, follow_symlinks=False)
        yield copy


def _cache_of(folder: Path) -> Path:
    """The folder that a snapshot's links may lead into: that of its repository in a cache, else the snapshot itself."""
    whole = folder.resolve()
    return whole.parents[1] if whole.parent.name == "snapshots" else whole


def _snapshot(repository: str, revision: str, *, online: bool, **where: Any) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise MissingExtra("huggingface_hub is not installed", hint="pip install 'ostiary[text]'") from error
    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=not online, **where))
    except LocalEntryNotFoundError as error:
        if online:
            raise EndpointError(f"'{repository}' could not be fetched: the hub did not answer") from error
        raise FormatError(
            f"'{repository}' at {revision} is not in the cache", hint="fetch it first, or say online=True"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise EndpointError(f"'{repository}' at {revision} could not be fetched: {error}") from error
