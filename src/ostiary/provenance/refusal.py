"""Why a file is refused: a stable code, which file, and what was found in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ostiary.core.errors import OstiaryError


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason to refuse: its code in `ostiary.core.refusals`, what it is about, and what was found there."""

    code: str
    subject: str
    message: str

    def __str__(self) -> str:
        return f"{self.code} {self.subject}: {self.message}"


class Refused(OstiaryError):
    """A file was read and is not to be used; ends a command with exit code 1.

    `reasons` are all that were found, the first of them in the message. `decision` is the `Decision` on record, where
    one was made.
    """

    exit_code = 1

    def __init__(self, reasons: Sequence[Reason], *, hint: str | None = None) -> None:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        super().__init__(f"refused: {reasons[0]}{more}", hint=hint)
        self.reasons = tuple(reasons)
        self.decision: Any = None
