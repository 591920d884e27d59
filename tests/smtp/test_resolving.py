"""How often the SMTP client asks where mail for a destination goes."""
import os
import pwd
import time

import pytest

from instance import wait_for
from name_server import Names
from sink import Sink

USER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def world(make_instance):
    made = []

    def start(zone):
        server, names = Sink(), Names(zone)
        made.extend([server, names])
        instance = make_instance(user=USER if os.geteuid() == 0 else None, dns=names.address,
                                 main_cf=f"relayhost = far.example:{server.port}\n"
                                         "smtp_connection_cache_on_demand = no\nsoft_bounce = yes\n")
        return instance, server, names

    yield start
    for each in made:
        each.close()


def send(instance):
    have = instance.log().count("status=")
    with instance.smtp() as smtp:
        smtp.sendmail("me@here.example", ["a@far.example"], "Subject: x\r\n\r\nhello\r\n")
    wait_for(lambda: instance.log().count("status=") > have)
    return instance.log().split("status=")[-1].split()[0]


def zone(ttl, address_ttl):
    return {("far.example", "MX"): (ttl, ["10 mx.far.example."]), ("mx.far.example", "A"): (address_ttl, ["127.0.0.1"])}


def mx_questions(names):
    return names.asked.count(("far.example", "MX"))


def test_an_answer_is_remembered(world):
    instance, server, names = world(zone(3600, 3600))
    assert [send(instance) for _ in range(3)] == ["sent"] * 3
    assert server.connections == 3
    assert names.asked == [("far.example", "MX"), ("mx.far.example", "A")]


@pytest.mark.parametrize("ttls", [(0, 3600), (3600, 0)])
def test_no_time_to_live(world, ttls):
    instance, _, names = world(zone(*ttls))
    assert [send(instance) for _ in range(3)] == ["sent"] * 3
    assert mx_questions(names) == 3


def test_its_time_ends(world):
    instance, _, names = world(zone(3600, 1))
    assert send(instance) == "sent"
    time.sleep(1.1)
    names.zone[("far.example", "MX")] = (3600, ["10 other.far.example."])
    assert send(instance) == "SOFTBOUNCE"  # other.far.example has no address
    assert mx_questions(names) == 2
    # and what failed is not remembered
    names.zone[("other.far.example", "A")] = (3600, ["127.0.0.1"])
    assert send(instance) == "sent"


def test_a_domain_without_mx(world):
    """How long there will be none, no record says."""
    instance, _, names = world({("far.example", "A"): (3600, ["127.0.0.1"])})
    assert [send(instance) for _ in range(2)] == ["sent"] * 2
    assert mx_questions(names) == 2
