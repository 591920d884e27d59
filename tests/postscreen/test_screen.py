"""What the comparison does not cover: DNS lists, the cache over time, limits, reloads, many that say nothing."""
import re
import time

import pytest
from instance import start_many
from name_server import Names
from screens import Client, Screen, lines_of, play, wait_for

DEEP = "postscreen_pipelining_enable = yes\n"
MAIL = ["EHLO c.example\r\n", 1, "MAIL FROM:<a@b.example>\r\n", 1, "RCPT TO:<u@localhost>\r\n", 1, "QUIT\r\n", 1]
LISTED = {("1.0.0.127.bad.example", "A"): (300, ["127.0.0.2", "127.0.0.9"]),
          ("1.0.0.127.good.example", "A"): (7, ["127.0.5.1"])}


@pytest.fixture
def make_screen():
    yield from start_many(Screen)


@pytest.fixture
def names():
    server = Names(dict(LISTED))
    yield server
    server.close()


def lists(*sites, action="enforce", more=""):
    return f"postscreen_dnsbl_sites = {' '.join(sites)}\npostscreen_dnsbl_action = {action}\n{more}"


def rank(p):
    """What the log says of the rank; None: nothing."""
    found = re.search(r"DNSBL rank (-?\d+) for", p.log())
    return found and int(found[1])


# --- DNS lists ---
def test_listed_client_hears_by_whom(make_screen, names):
    p = make_screen(main_cf=lists("bad.example", "clean.example"), dns=names.address)
    assert "550 5.7.1 Service unavailable; client [127.0.0.1] blocked using bad.example\r\n" in play(p, [1, *MAIL])
    p.wait_log("DISCONNECT")
    assert rank(p) == 1
    assert "addr 127.0.0.1 listed by domain bad.example as 127.0.0.9" in p.log()
    assert "PASS NEW" not in p.log()


def test_listed_client_dropped(make_screen, names):
    p = make_screen(main_cf=lists("bad.example", action="drop"), dns=names.address)
    assert play(p, [2]).endswith("521 5.7.1 Service unavailable; client [127.0.0.1] blocked using bad.example\r\n<end>")


def test_listed_client_ignored_is_asked_about_again(make_screen, names):
    p = make_screen(main_cf=lists("bad.example", action="ignore"), dns=names.address)
    for n in (1, 2):
        play(p, [1, "QUIT\r\n", 1])
        wait_for(lambda n=n: p.log().count("DNSBL rank 1 for") == n)
    assert len(names.asked) >= 2


@pytest.mark.parametrize("sites, score", [
    (["bad.example*3"], 3),
    (["bad.example=127.0.0.2"], 1),
    (["bad.example=127.0.0.[3..8]"], None),
    (["bad.example=127.0.0.[1;9]*2", "bad.example=127.0.0.2*5"], 7),
    (["bad.example*3", "good.example*-2"], 1),
    (["bad.example*3", "good.example*-3"], None),
])
def test_weights_and_filters(make_screen, names, sites, score):
    p = make_screen(main_cf=lists(*sites), dns=names.address)
    play(p, [1, "QUIT\r\n", 1])
    wait_for(lambda: re.search(r"PASS NEW|DISCONNECT", p.log()))
    assert rank(p) == score


def test_a_domain_of_many_sites_is_asked_once(make_screen, names):
    p = make_screen(main_cf=lists("bad.example=127.0.0.1", "bad.example=127.0.0.3*7"), dns=names.address)
    play(p, [1, "QUIT\r\n", 1])
    wait_for(lambda: "PASS NEW" in p.log())
    assert names.asked == [("1.0.0.127.bad.example", "A")]


def test_threshold(make_screen, names):
    p = make_screen(main_cf=lists("bad.example*3", more="postscreen_dnsbl_threshold = 4\n"), dns=names.address)
    play(p, [1, "QUIT\r\n", 1])
    wait_for(lambda: "PASS NEW" in p.log())
    assert rank(p) is None


def test_a_good_name_makes_other_tests_needless(make_screen, names):
    """postscreen_dnsbl_allowlist_threshold; the answer's time is 7 s, but postscreen_dnsbl_min_ttl counts."""
    p = make_screen(main_cf=lists("good.example*-1", more="postscreen_dnsbl_allowlist_threshold = -1\n") + DEEP,
                    dns=names.address)
    assert "250-PIPELINING" in play(p, [1, "EHLO x\r\n", 1, "QUIT\r\n", 1])  # that is smtpd
    p.wait_log("PASS NEW")
    play(p, ["EHLO x\r\n", 1, "QUIT\r\n", 1])
    p.wait_log("PASS OLD")


def test_what_a_list_is_called_for_strangers(make_screen, names):
    p = make_screen(main_cf=lists("bad.example", more="postscreen_dnsbl_reply_map = inline:{bad.example=zone.example}\n"),
                    dns=names.address)
    assert "blocked using zone.example\r\n" in play(p, [1, *MAIL])


def test_a_list_that_does_not_answer_does_not_count(make_screen):
    p = make_screen(main_cf=lists("bad.example", more="postscreen_dnsbl_timeout = 2s\n"))
    play(p, [1, "QUIT\r\n", 1])
    p.wait_log("PASS NEW")


# --- the cache ---
def test_passes_end(make_screen):
    p = make_screen(main_cf="postscreen_greet_ttl = 2s\n")
    play(p, [1, "QUIT\r\n", 1])
    play(p, [1, "QUIT\r\n", 1])
    p.wait_log("PASS OLD")
    time.sleep(2.5)
    play(p, [1, "QUIT\r\n", 1])
    wait_for(lambda: p.log().count("PASS NEW") == 2)


def test_no_cache(make_screen):
    p = make_screen(main_cf="postscreen_cache_map =\n")
    for n in (1, 2):
        play(p, [1, "QUIT\r\n", 1])
        wait_for(lambda n=n: p.log().count("PASS NEW") == n)


def test_passes_outlive_the_process_and_are_cleaned(make_screen):
    p = make_screen(main_cf="postscreen_greet_ttl = 1h\n")
    play(p, [1, "QUIT\r\n", 1])
    p.wait_log("PASS NEW")
    p.postfix("stop")
    p.extra += "postscreen_cache_retention_time = 1s\n"
    p.write_config()
    p.start()
    play(p, [1, "QUIT\r\n", 1])
    p.wait_log("PASS OLD")
    p.wait_log("full cleanup: retained=1 dropped=0 entries")


# --- limits ---
def test_connections_of_one_client(make_screen):
    p = make_screen(main_cf="postscreen_client_connection_count_limit = 1\npostscreen_greet_wait = 60s\n")
    first = Client(p.port)
    first.hear()
    assert play(p, [1, 1]) == "421 4.7.0 Error: too many connections\r\n<end>"
    p.wait_log("too many connections")
    assert "NOQUEUE: reject: CONNECT from [127.0.0.1]:PORT: too many connections" in lines_of(p.log())
    first.close()
    p.wait_log("HANGUP")
    again = Client(p.port)
    assert again.hear().startswith("220-")
    again.close()


def test_stress_and_no_place(make_screen):
    p = make_screen(main_cf="postscreen_client_connection_count_limit = 0\npostscreen_pre_queue_limit = 10\n"
                            "postscreen_greet_wait = ${stress?{2}:{60}}s\n")
    waiting = [Client(p.port) for _ in range(10)]
    for client in waiting:
        assert client.hear().startswith("220-")
    p.wait_log("entering STRESS mode with 9 connections")
    assert play(p, [1, 1]) == "421 4.3.2 All screening ports are busy\r\n<end>"
    waiting[-1].hear(seconds=10)
    assert waiting[-1].heard[-1].startswith("220 ")  # it came under stress: two seconds
    for client in waiting:
        client.close()
    p.wait_log("leaving STRESS mode with 7 connections")


def test_nobody_waits_for_the_last_client_of_the_old_process(make_screen):
    p = make_screen(main_cf="postscreen_greet_wait = 30s\n")
    first = Client(p.port)
    first.hear()
    p.reload()
    clients = [first]

    def another_process():
        """The old one may have taken a client that came before it heard of the reload."""
        clients.append(Client(p.port))
        return clients[-1].hear().startswith("220-") and len(p.pids("postscreen")) == 2
    wait_for(another_process)
    for client in clients:
        client.close()


def test_idle_clients_cost_little(make_screen):
    p = make_screen(main_cf="postscreen_client_connection_count_limit = 0\npostscreen_pre_queue_limit = 1000\n"
                            "postscreen_greet_wait = 60s\n")
    clients = [Client(p.port) for _ in range(500)]
    for client in clients:
        client.hear()
    assert len(p.pids("postscreen")) == 1 and not p.pids("smtpd")
    for client in clients:
        client.close()


# --- mistakes of the administrator ---
@pytest.mark.parametrize("line, fault", [
    ("postscreen_greet_action = maybe", 'bad postscreen_greet_action setting: "maybe"; specify ignore, enforce or drop'),
    ("postscreen_dnsbl_sites = x.example=127.0.0", "four numbers with dots between them are wanted"),
    ("postscreen_dnsbl_sites = x.example*many", 'bad weight in "x.example*many"'),
    ("postscreen_access_list = permit_all", 'bad postscreen_access_list item: "permit_all"'),
])
def test_mistakes_are_named(make_screen, line, fault):
    p = make_screen(main_cf=line + "\n")
    client = Client(p.port)
    assert "fatal: " in p.wait_log(fault)
    client.close()


def test_stock_lines_need_no_other_daemons(make_screen):
    p = make_screen(start=False)
    assert not re.search(r"dnsblog|tlsproxy|postscreen", p.postfix("check").stderr)
