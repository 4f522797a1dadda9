"""What this machine has seen of each trust store, so that neither an old store nor a clock set back is believed."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime, Field, ValidationError

from ostiary.core.errors import FormatError, OutputError
from ostiary.core.files import write_text
from ostiary.core.records import Frozen
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.trust import Store, day

SKEW = timedelta(minutes=5)
"""Clocks of different machines may differ by this much."""


class Seen(Frozen):
    """The newest version of each store by its id, the digest that this version had, and the latest time."""

    versions: dict[str, int] = Field(default_factory=dict)
    digests: dict[str, str] = Field(default_factory=dict)
    latest: AwareDatetime | None = None


def state_folder() -> Path:
    """Where memory is kept: `OSTIARY_STATE`, else `ostiary` under `XDG_STATE_HOME`, else `~/.local/state/ostiary`."""
    if own := os.environ.get("OSTIARY_STATE"):
        return Path(own)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "ostiary"


def remember(store: Store, digest: str, now: datetime, folder: Path | None = None) -> None:
    """Check a store against what was seen before, and note it.

    Raises Refused when the store has expired (OS743), is older than one seen before or says other things under the
    same version (OS742), or when the clock stands before the latest time seen (OS748); FormatError when the memory
    is damaged, OutputError when it cannot be kept: without memory an old store could not be told.
    """
    if now >= store.expires:
        raise Refused([Reason("OS743", store.id, f"the trust store expired on {day(store.expires)}")])
    folder = folder or state_folder()
    with _locked(folder):
        path = folder / "seen.json"
        seen = _read(path)
        if seen.latest is not None and now < seen.latest - SKEW:
            when = seen.latest.astimezone(UTC).isoformat(timespec="seconds")
            raise Refused([Reason("OS748", "clock", f"it was {when} here before: the clock was set back")])
        last = seen.versions.get(store.id, 0)
        if store.version < last:
            raise Refused([Reason("OS742", store.id, f"version {store.version} of the store; {last} was seen here")])
        if store.version == last and seen.digests.get(store.id) != digest:
            raise Refused([Reason("OS742", store.id, f"another store than the one seen here as version {last}")])
        newer = Seen(
            versions={**seen.versions, store.id: store.version},
            digests={**seen.digests, store.id: digest},
            latest=max(now, seen.latest or now),
        )
        write_text(path, newer.model_dump_json(indent=2) + "\n", replace=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise OutputError(f"cannot keep '{folder}': {error.strerror}", hint="set OSTIARY_STATE to a folder") from error


def _read(path: Path) -> Seen:
    try:
        return Seen.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Seen()
    except ValidationError as error:
        raise FormatError(
            f"'{path}' is damaged, so that an old trust store could not be told",
            hint="remove it once you have made sure that your trust store is the newest",
        ) from error
