import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from support import Probe  # noqa: E402


@pytest.fixture
def make_probe():
    made = []

    def make(start=True, **kwargs):
        probe = Probe(**kwargs)
        made.append(probe)
        return probe.start() if start else probe

    yield make
    for probe in made:
        print(f"--- log of {probe.name}:\n{probe.log()}")
        probe.stop()


@pytest.fixture
def probe(make_probe):
    return make_probe()
