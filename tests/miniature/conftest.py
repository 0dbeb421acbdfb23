import pytest

from llamaherd.miniature.world import World


@pytest.fixture(scope="session")
def world():
    return World()
