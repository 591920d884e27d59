"""Fixtures shared by all black-box tests."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from instance import Instance, start_many  # noqa: E402


@pytest.fixture
def make_instance():
    """make_instance(main_cf=..., ...): started; stopped at the end of the test, its log shown when the test failed."""
    yield from start_many(Instance)


@pytest.fixture
def instance(make_instance):
    return make_instance()
