"""nsd, a real name server, serves what smtpd and postscreen ask for: lists of addresses with weights, texts and subdomains,
MX and NS hosts, and the SPF policy that the stock policy server looks up."""
import contextlib
import importlib.util
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from instance import free_port, start_many, wait_for
from restrictions.policy_servers import USER
from smtpd.dialogue import Client

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "postscreen"))
from screens import Screen, play  # noqa: E402

pytestmark = pytest.mark.skipif(not shutil.which("nsd", path="/usr/sbin:/usr/bin"), reason="no nsd")

HEAD = "$TTL 60\n@ SOA ns.{zone}. admin.{zone}. 1 3600 600 86400 60\n@ NS ns.{zone}.\nns A 127.0.0.1\n"
ZONES = {
    "list.example": """\
41.0.0.127 A 127.0.0.2
41.0.0.127 TXT "Spam source, see https://list.example/?q=127.0.0.41"
42.0.0.127 A 127.0.0.4
42.0.0.127 A 127.0.0.9
long.0.0.127 A 127.0.0.2
43.0.0.127 A 127.0.0.2
43.0.0.127 TXT ( "first part, " "second part" )
bad.example.dom A 127.0.1.2
""",
    "good.example": "44.0.0.127 A 127.0.5.1\n",
    "there.example": """\
@ MX 10 mx
@ TXT "v=spf1 ip4:127.0.0.45 -all"
mx A 127.0.0.46
nomx MX 0 .
loop CNAME loop2
loop2 CNAME loop
""",
    "0.127.in-addr.arpa": "47.0 PTR client.there.example.\n",
    "client.there.example": "@ A 127.0.0.47\n",
}


@pytest.fixture(scope="module")
def nsd(tmp_path_factory):
    """address:port"""
    here = tmp_path_factory.mktemp("nsd")
    port = free_port()
    conf = (f"server:\n  ip-address: 127.0.0.1@{port}\n  port: {port}\n  username: \"\"\n  chroot: \"\"\n  zonesdir: \"{here}\"\n"
            f"  pidfile: \"{here}/pid\"\n  xfrdfile: \"\"\n  zonelistfile: \"{here}/list\"\n  database: \"\"\n"
            f"  server-count: 1\n  logfile: \"{here}/log\"\n  xfrdir: \"{here}\"\nremote-control:\n  control-enable: no\n")
    for zone, lines in ZONES.items():
        (here / zone).write_text(HEAD.format(zone=zone) + lines)
        conf += f"zone:\n  name: \"{zone}\"\n  zonefile: \"{zone}\"\n"
    (here / "nsd.conf").write_text(conf)
    process = subprocess.Popen(["nsd", "-d", "-c", str(here / "nsd.conf")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def up():
        import dns.message
        import dns.query
        assert process.poll() is None, (here / "log").read_text()
        with contextlib.suppress(OSError, dns.exception.Timeout):
            return dns.query.udp(dns.message.make_query("list.example", "SOA"), "127.0.0.1", 1, port).answer
    try:
        wait_for(up, what="nsd")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def ask(port, source, sender="a@there.example", recipient="user@localhost"):
    client = Client(port, source)
    client.reply()
    client.ask("EHLO c.example")
    client.ask(f"MAIL FROM:<{sender}>")
    reply = client.ask(f"RCPT TO:<{recipient}>")[-1]
    client.ask("QUIT")
    client.close()
    return reply


MAIN_CF = "mynetworks =\nlocal_recipient_maps =\nlocal_transport = discard\nsmtpd_error_sleep_time = 0\n"
ROWS = [  # restriction, client, sender, reply
    ("reject_rbl_client list.example", "127.0.0.41", None, "554 5.7.1 Service unavailable; Client host [127.0.0.41] blocked using "
     "list.example; Spam source, see https://list.example/?q=127.0.0.41"),
    ("reject_rbl_client list.example", "127.0.0.43", None, "554 5.7.1 Service unavailable; Client host [127.0.0.43] blocked using "
     "list.example; first part, second part"),
    ("reject_rbl_client list.example", "127.0.0.40", None, "250"),
    ("reject_rbl_client list.example=127.0.0.2", "127.0.0.42", None, "250"),
    ("reject_rbl_client list.example=127.0.0.[4;5]", "127.0.0.42", None, "554"),
    ("permit_dnswl_client good.example, reject", "127.0.0.44", None, "250"),
    ("permit_dnswl_client good.example, reject", "127.0.0.41", None, "554 5.7.1 <a@there.example>: Sender address rejected: "
     "Access denied"),
    ("reject_rhsbl_sender dom.list.example, reject_rhsbl_sender list.example=127.0.1.2", "127.0.0.40", "x@bad.example.dom",
     "554 5.7.1 Service unavailable; Sender address [x@bad.example.dom] blocked using list.example"),
    ("reject_unknown_sender_domain", "127.0.0.40", "x@there.example", "250"),
    ("reject_unknown_sender_domain", "127.0.0.40", "x@none.there.example", "450 4.1.8 <x@none.there.example>: Sender address "
     "rejected: Domain not found"),
    ("reject_unknown_sender_domain", "127.0.0.40", "x@nomx.there.example", "550 5.7.27 <x@nomx.there.example>: Sender address "
     "rejected: Domain nomx.there.example does not accept mail (nullMX)"),
    ("reject_unknown_sender_domain", "127.0.0.40", "x@loop.there.example", "45"),
    ("check_sender_mx_access inline:{ 127.0.0.46=REJECT }", "127.0.0.40", "x@there.example", "554 5.7.1 <x@there.example>: Sender "
     "address rejected: Access denied"),
    ("check_sender_ns_access inline:{ ns.there.example=REJECT }", "127.0.0.40", "x@there.example", "554"),
    ("reject_unknown_client_hostname", "127.0.0.47", None, "250"),
    ("reject_unknown_client_hostname", "127.0.0.40", None, "450 4.7.25 Client host rejected: cannot find your hostname"),
]


def test_smtpd(make_instance, nsd):
    ports = [free_port() for _ in ROWS]
    extra = "".join(f"127.0.0.1:{port} inet n - n - - smtpd\n  -o {{ smtpd_sender_restrictions = {row[0]} }}\n"
                    for port, row in zip(ports, ROWS))
    make_instance(main_cf=MAIN_CF, master_extra=extra, dns=nsd)
    wrong = []
    for port, (restriction, client, sender, reply) in zip(ports, ROWS):
        heard = ask(port, client, sender or "a@there.example")
        if not heard.startswith(reply) or (reply == "250" and not heard.startswith("250")):
            wrong.append((restriction, client, sender, heard))
    assert wrong == []


@pytest.fixture
def make_screen():
    yield from start_many(Screen)


def test_postscreen(make_screen, nsd):
    screen = make_screen(main_cf="mynetworks = 192.0.2.0/24\npostscreen_dnsbl_sites = list.example=127.0.0.[2..9]*3 good.example*-2\n"
                         "postscreen_dnsbl_threshold = 3\npostscreen_dnsbl_action = enforce\n", dns=nsd)
    said = {}
    for last in (40, 41, 42, 44):
        with socket.create_connection(("127.0.0.1", screen.port), 30, source_address=(f"127.0.0.{last}", 0)) as s:
            reader = s.makefile("rb")
            for line in (None, "EHLO c.example", "MAIL FROM:<a@b.example>", "RCPT TO:<u@localhost>"):
                if line:
                    s.sendall(line.encode() + b"\r\n")
                reply = reader.readline()
                while reply[3:4] == b"-":
                    reply = reader.readline()
            said[last] = reply.decode()
    for last in (41, 42):
        assert said[last].startswith(f"550 5.7.1 Service unavailable; client [127.0.0.{last}] blocked using list.example")
        screen.wait_log(f"DNSBL rank 3 for [127.0.0.{last}]:")
    assert said[40].startswith("250 2.1.5") and said[44].startswith("250 2.1.5")
    screen.wait_log("addr 127.0.0.44 listed by domain good.example as 127.0.5.1")


SPF = """\
import dns.resolver
resolver = dns.resolver.Resolver(configure=False)
resolver.nameservers, resolver.port = ["127.0.0.1"], {port}
dns.resolver.default_resolver = resolver
from spf_engine.policyd_spf import main
main()
"""


@pytest.mark.skipif(not importlib.util.find_spec("spf_engine"), reason="no spf_engine")
def test_policyd_spf(make_instance, nsd, tmp_path):
    """As its package says in master.cf: service policy-spf, by spawn, which lives longer than other commands."""
    settings = tmp_path / "policyd-spf.conf"
    settings.write_text("debugLevel = 1\nskip_addresses = 192.0.2.0/24\nHELO_reject = False\nMail_From_reject = Fail\n")
    script = tmp_path / "policyd-spf"
    script.write_text(SPF.format(port=nsd.split(":")[1]))
    for path in (settings, script, tmp_path, *tmp_path.parents):
        with contextlib.suppress(PermissionError):
            path.chmod(path.stat().st_mode | 0o055)
    server = make_instance(main_cf=MAIN_CF + "policy-spf_time_limit = 3600s\nsmtpd_data_restrictions = check_client_access static:HOLD\n"
                           "smtpd_recipient_restrictions = reject_unauth_destination, check_policy_service unix:private/policy-spf\n",
                           master_extra=f"policy-spf unix - n n - 0 spawn\n  user={USER} argv=/usr/bin/python3 {script} {settings}\n",
                           dns=nsd)
    refused = ask(server.port, "127.0.0.41")
    assert refused.startswith("550 5.7.23 <user@localhost>: Recipient address rejected: Message rejected due to: SPF fail"), refused
    assert ask(server.port, "127.0.0.45").startswith("250")
    assert not re.search("problem talking|time limit", server.log())
