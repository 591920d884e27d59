import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from instance import start_many  # noqa: E402
from support import Probe  # noqa: E402


@pytest.fixture
def make_probe():
    yield from start_many(Probe)


@pytest.fixture
def probe(make_probe):
    return make_probe()
