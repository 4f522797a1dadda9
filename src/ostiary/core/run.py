"""The one side channel of a method: randomness, device, deadline, progress, artifacts, cautions."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from ostiary.core.errors import OutOfTime
from ostiary.core.records import Caution

Progress = Callable[[int, int, str], None]


def _quiet(done: int, total: int, label: str) -> None:
    """Report nothing."""


@dataclass(slots=True)
class Run:
    """What a method may use beside its arguments. Methods print, read and write nothing.

    `deadline` is on the clock of `time.monotonic`. `generator(stream)` gives independent, seeded
    streams, so that one method's draws never shift another's.
    """

    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    deadline: float | None = None
    on_progress: Progress = _quiet
    artifacts: dict[str, np.ndarray] = field(default_factory=dict)
    cautions: list[Caution] = field(default_factory=list)

    def generator(self, stream: str = "") -> torch.Generator:
        """A CPU generator that depends on the seed and on `stream` only."""
        words = np.random.SeedSequence([self.seed, *stream.encode()]).generate_state(2, np.uint32)
        return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)

    def progress(self, done: int, total: int, label: str) -> None:
        """Tell how far the work is."""
        self.on_progress(done, total, label)

    def step(self, done: int, total: int, label: str) -> None:
        """Tell how far the work is, where only finished work is worth something.

        Raises OutOfTime once the deadline has passed with work left.
        """
        self.progress(done, total, label)
        if done < total and self.out_of_time:
            raise OutOfTime(f"the time limit passed during {label}, at {done} of {total}", hint="raise --time-limit")

    @property
    def out_of_time(self) -> bool:
        """True once the deadline has passed; a method then returns what it has."""
        return self.deadline is not None and time.monotonic() > self.deadline

    def artifact(self, name: str, array: "np.ndarray | torch.Tensor") -> str:
        """Keep an array beside the record under `name` and return the name."""
        if isinstance(array, torch.Tensor):
            array = array.detach().cpu().float().numpy() if array.is_floating_point() else array.cpu().numpy()
        self.artifacts[name] = np.ascontiguousarray(array)
        return name

    def caution(self, code: str, text: str) -> None:
        """Note that a measurement may be invalid (codes OS9xx)."""
        caution = Caution(code=code, text=text)
        if caution not in self.cautions:
            self.cautions.append(caution)

    def child(self) -> "Run":
        """The same run for one method, with artifacts and cautions of its own."""
        return Run(self.seed, self.device, self.deadline, self.on_progress)
