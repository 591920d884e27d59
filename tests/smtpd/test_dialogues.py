"""Every dialogue of tests/dialogues against a running server."""
import fnmatch

import pytest

from instance import Instance, free_port, wait_for
from login_server import LoginServer
from smtpd.dialogue import WORLD, dialogues, play, services

ALL = [d for d in dialogues() if d.with_server]


@pytest.fixture(scope="module")
def server():
    lines, ports = services(ALL, free_port, "n - n - -")
    instance = Instance(main_cf=WORLD, master_extra=lines, name="dialogues")
    try:
        with LoginServer(instance.start().queue / "private/login"):
            yield instance, ports
    finally:
        print(instance.log())
        instance.stop()


def records(text):
    return [line.partition("]: ")[2] for line in text.splitlines()]


@pytest.mark.parametrize("dialogue", ALL, ids=lambda d: d.name)
def test_dialogue(server, dialogue):
    instance, ports = server
    before = len(instance.log())
    play(dialogue, ports[dialogue.name])
    for pattern in dialogue.logs:
        wait_for(lambda: fnmatch.filter(records(instance.log()[before:]), pattern), what=f"log record {pattern!r}")
