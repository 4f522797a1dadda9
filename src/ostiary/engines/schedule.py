"""Running jobs that need one another on any engine."""

from collections.abc import Iterable, Iterator

from ostiary.core.errors import ConfigError
from ostiary.engines.job import Done, Engine, Job


def schedule(engine: Engine, jobs: Iterable[Job], *, finished: Iterable[str] = ()) -> Iterator[Done]:
    """Run all `jobs`, each once all that it needs ended well; yields each as it ends.

    `finished` are keys of jobs that ended well before. What needs a job that did not end well is not
    run and yielded as `blocked`. Jobs start in the given order as far as their needs allow, no more
    than the engine has slots. Raises ConfigError for needs that nothing meets.
    """
    waiting = {job.key: job for job in jobs}
    good, running = set(finished), set[str]()
    known = good | waiting.keys()
    for job in waiting.values():
        if lost := [key for key in job.needs if key not in known]:
            raise ConfigError(f"job '{job.key}' needs '{lost[0]}', which is not among the jobs")
    while waiting or running:
        ready = [key for key, job in waiting.items() if good.issuperset(job.needs)]
        for key in ready[: engine.slots - len(running)]:
            running.add(key)
            engine.submit(waiting.pop(key))
        if not running:
            raise ConfigError(f"jobs need one another in a circle: {', '.join(sorted(waiting)[:3])}")
        done = engine.take()
        if done is None:
            continue
        running.discard(done.key)
        yield done
        if done.status == "ok":
            good.add(done.key)
        else:
            yield from _blocked(done, waiting)


def _blocked(cause: Done, waiting: dict[str, Job]) -> Iterator[Done]:
    """Take what cannot run any more because of `cause` out of `waiting`."""
    lost = [key for key, job in waiting.items() if cause.key in job.needs]
    for key in lost:
        waiting.pop(key)
    for key in lost:
        reason = (
            cause.reason if cause.status == "blocked" else f"what it needs ended with {cause.status}: {cause.reason}"
        )
        done = Done(key=key, status="blocked", reason=reason)
        yield done
        yield from _blocked(done, waiting)
