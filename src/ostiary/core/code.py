"""What a stable code of a finding or caution says."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """What `ostiary explain` prints."""

    id: str
    title: str
    meaning: str
    method: str
    false_alarms: str
    next_step: str
