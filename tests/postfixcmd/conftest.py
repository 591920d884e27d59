import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from instance import start_many  # noqa: E402
from machine import DebianMachine, Machine, why_not  # noqa: E402


@pytest.fixture
def make_machine():
    if why_not():
        pytest.skip(why_not())
    yield from start_many(Machine)


@pytest.fixture
def machine(make_machine):
    return make_machine(start=False)


@pytest.fixture
def debian():
    reason = why_not() or DebianMachine.why_not()
    if reason:
        pytest.skip(reason)
    one = DebianMachine()
    one.write()
    yield one
    one.stop()
