"""Where jobs run: one machine, a Ray cluster, Slurm. One small interface, one job a process."""

from ostiary.engines.catalog import ENGINES, make_engine
from ostiary.engines.job import Done, Engine, Job
from ostiary.engines.schedule import schedule

__all__ = ["ENGINES", "Done", "Engine", "Job", "make_engine", "schedule"]
