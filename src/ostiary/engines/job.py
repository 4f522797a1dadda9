"""What an engine runs and what it gives back: plain data, so that it can go to another machine as JSON."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, Self, runtime_checkable

DoneStatus = Literal["ok", "failed", "timeout", "memory", "crashed", "blocked"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One call in a process of its own.

    `call` names a function as `module:function`; it is called with the keywords `args` (JSON values:
    paths, digests, numbers; never objects) and returns a JSON value. A `sealed` job closes the seal
    before it imports anything of ours, with the folders `hidden` out of its reach, but for what
    `keep` names inside them. `needs` are the keys of jobs that must have ended well before.
    `timeout` is in seconds, `memory` in bytes of private memory (None: no limit), `threads` are torch's.
    """

    key: str
    call: str
    args: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    sealed: bool = False
    hidden: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    timeout: float | None = None
    memory: int | None = None
    threads: int = 1

    def to_json(self) -> str:
        """The job as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """The job that `to_json` made a text of."""
        values = json.loads(text)
        return cls(**{**values, **{name: tuple(values[name]) for name in ("needs", "hidden", "keep")}})


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """How a job ended.

    `value` is what the function returned when `status` is ok; `reason` says in words why it is not.
    `blocked` means that a job it needs did not end well. `seconds` run from the start of the process
    to its end, `peak_bytes` is the process's own high-water mark.
    """

    key: str
    status: DoneStatus
    value: Any = None
    reason: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0

    def to_json(self) -> str:
        """The end as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Done":
        """The end that `to_json` made a text of."""
        return cls(**json.loads(text))


@runtime_checkable
class Engine(Protocol):
    """Runs jobs on one or many machines; order of completion is not promised.

    Use as a context manager: leaving it ends whatever still runs.
    """

    @property
    def slots(self) -> int:
        """How many jobs may run at once."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...

    def submit(self, job: Job, /) -> None:
        """Take a job; its `needs` are met."""
        ...

    def take(self, timeout: float | None = None) -> Done | None:
        """The next job that ended; None when none ends within `timeout` seconds."""
        ...

    def close(self) -> None:
        """End whatever still runs."""
        ...
