"""Every error a user can meet.

`OstiaryError` is the one base class. Each message says what is wrong and where; `hint` says the
next step. The command line prints both and exits with `exit_code`; nothing else may reach a user
as an expected failure.
"""


class OstiaryError(Exception):
    """An expected failure with a next step; ends a command with exit code 2."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class FormatError(OstiaryError):
    """A file is missing, truncated, of another kind than it claims, or larger than allowed."""


class DataError(OstiaryError):
    """A data set was read but cannot be used: labels, sizes, channels, classes."""


class NoPart(DataError):
    """A data set has no part of the kind asked for."""


class ModelError(OstiaryError):
    """A model was read but cannot be used: keys, shapes, NaN weights, classes."""


class EndpointError(OstiaryError):
    """A server did not answer, refused, or answered what cannot be used."""


class ConfigError(OstiaryError):
    """An unknown method, key or option value."""


class OutputError(OstiaryError):
    """An output exists already or cannot be written."""


class MissingExtra(OstiaryError):
    """An optional dependency is not installed."""


class NotMet(OstiaryError):
    """A method's needs are not met by what was given; `execute` records it as skipped."""

    exit_code = 3


class OutOfTime(OstiaryError):
    """The time limit passed before a result was there; `execute` records it as partial."""

    exit_code = 3


class JobFailed(OstiaryError):
    """A job of an engine crashed or failed, so what it was part of is not there."""

    exit_code = 3


class SealBroken(OstiaryError):
    """A defence process tried to reach the sealed truth or a sealed module."""

    exit_code = 3
