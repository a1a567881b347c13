from __future__ import annotations

import pytest

from sim.host.config import HostConfig
from sim.world import World


@pytest.fixture
def make(tmp_path):
    """Makes a world whose host has these rules; closed at the end."""
    worlds = []

    def make(**config):
        worlds.append(World(tmp_path, config=HostConfig(**config)))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()
