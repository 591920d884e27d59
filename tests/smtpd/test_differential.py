"""The dialogues beside Debian's postfix: it, too, must do what the files say, and say the same words as ours."""
import fnmatch
import re

import pytest

from instance import Instance, free_port, wait_for
from login_server import LoginServer
from oracle import Oracle
from smtpd.dialogue import WORLD, dialogues, play, services
from smtpd.test_dialogues import records

ALL = [d for d in dialogues() if d.with_oracle and d.with_server]
pytestmark = pytest.mark.skipif(Oracle.why_not() is not None, reason=str(Oracle.why_not()))

# What 3.12 has by default and Debian's 3.7 wants to be told.
OLD_DEFAULTS = {
    "smtpd_forbid_unauth_pipelining": "yes",
    "smtpd_forbid_bare_newline": "normalize",
    "smtpd_forbidden_commands": "CONNECT GET POST regexp:{{/^[^A-Z]/ Bogus}}",
    "smtpd_forbid_bare_newline_exclusions": "$mynetworks",
}


@pytest.fixture(scope="module")
def oracle():
    lines, ports = services(ALL, free_port, "n - n - -", OLD_DEFAULTS.items())
    server = Oracle(main_cf=WORLD)
    server.write()
    with open(server.directory / "etc/master.cf", "a") as master_cf:
        master_cf.write(lines)
    write, server.write = server.write, lambda: None
    try:
        with LoginServer(server.start().directory / "queue/private/login"):
            yield server, ports
    finally:
        server.write = write
        server.stop()


@pytest.fixture(scope="module")
def ours():
    lines, ports = services(ALL, free_port, "n - n - -")
    instance = Instance(main_cf=WORLD, master_extra=lines, name="differential")
    try:
        with LoginServer(instance.start().queue / "private/login"):
            yield instance, ports
    finally:
        instance.stop()


def normal(reply):
    reply = re.sub(r"queued as \w+", "queued as ID", reply)
    return reply.replace("ESMTP Angarium", "ESMTP NAME").replace("ESMTP Postfix", "ESMTP NAME")


@pytest.mark.parametrize("dialogue", ALL, ids=lambda d: d.name)
def test_oracle(oracle, dialogue):
    server, ports = oracle
    before = len(server.log())
    play(dialogue, ports[dialogue.name])
    for pattern in dialogue.logs:
        wait_for(lambda: fnmatch.filter(records(server.log()[before:]), pattern), what=f"log record {pattern!r}")


@pytest.mark.parametrize("dialogue", ALL, ids=lambda d: d.name)
def test_same_words(oracle, ours, dialogue):
    theirs = [normal(r) for r in play(dialogue, oracle[1][dialogue.name])]
    mine = [normal(r) for r in play(dialogue, ours[1][dialogue.name])]
    if any(r.startswith("250") for r in theirs) and "ehlo" in dialogue.name:
        return  # the keywords differ; that they are there is checked by the file
    assert [r for r in mine if not re.match(r"250 [A-Z0-9]+$", r)] == \
        [r for r in theirs if not re.match(r"250 [A-Z0-9]+$", r)]
