"""Progress on stderr: a bar on a terminal, one line per stage elsewhere, nothing when quiet."""

import sys
import time
from types import TracebackType
from typing import Any, Self

import click


class Progress:
    """What `Run.progress` calls; a context manager, so that the bar is cleared. `times` tells what stages took."""

    def __init__(self, *, quiet: bool, bar: bool, times: bool = False) -> None:
        self.quiet, self._want_bar, self._times = quiet, bar, times
        self._begun = 0.0
        self._bar: Any = None
        self._task: Any = None
        self._label = ""
        self._next = 0.0

    def __enter__(self) -> Self:
        if self._want_bar and not self.quiet:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (
                TextColumn("{task.description:<28}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._tell_time()

    def __call__(self, done: int, total: int, label: str) -> None:
        """Show `done` of `total`; a new label is a new stage."""
        if self.quiet:
            return
        if label != self._label:
            self._tell_time()
            self._label, self._begun = label, time.monotonic()
            if self._bar is None:
                click.echo(f"  {label} ...", err=True)
            else:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._task = self._bar.add_task(label, total=total)
        now = time.monotonic()
        if self._bar is not None and (now >= self._next or done == total):
            self._next = now + 0.1
            self._bar.update(self._task, completed=done, total=total)

    def _tell_time(self) -> None:
        if self._times and self._label and not self.quiet:
            click.echo(f"  {self._label}: {time.monotonic() - self._begun:.1f} s", err=True)


def wants_bar(no_progress: bool, ci: bool) -> bool:
    """A bar is drawn on a terminal outside CI unless it was turned off."""
    return sys.stderr.isatty() and not no_progress and not ci
