"""One Ray cluster for all tests of a session, since it takes seconds to start."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """The address of a Ray cluster on this machine, which this process has joined."""
    if find_spec("ray") is None:  # not imported, since the engine sets how ray is imported
        pytest.skip("ray is not installed")
    from ostiary.engines.ray import RayEngine

    with RayEngine("local", slots=2) as engine:
        yield engine.address
