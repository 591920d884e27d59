"""Fixtures shared by all black-box tests."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from instance import Instance  # noqa: E402


@pytest.fixture
def make_instance():
    """make_instance(main_cf=..., ...): started; stopped at the end of the test, its log shown when the test failed."""
    made = []

    def make(start=True, **kwargs):
        instance = Instance(**kwargs)
        made.append(instance)
        return instance.start() if start else instance

    yield make
    for instance in made:
        print(f"--- log of {instance.name}:\n{instance.log()}")
        instance.stop()


@pytest.fixture
def instance(make_instance):
    return make_instance()
