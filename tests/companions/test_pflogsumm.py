"""pflogsumm reads the log of a busy day: its numbers are those of the traffic, which the test has counted itself."""
import collections
import re
import shutil
import smtplib
import subprocess

import pytest

from instance import free_port, wait_for
from oracle import Oracle
from sink import Sink

pytestmark = pytest.mark.skipif(not shutil.which("pflogsumm"), reason="no pflogsumm")

MAIN_CF = """\
mydestination = localhost
local_recipient_maps =
local_transport = discard:local
smtpd_error_sleep_time = 0
smtpd_hard_error_limit = 1000
smtpd_delay_reject = yes
transport_maps = inline:{{ {{ gone.example = smtp:[127.0.0.1]:{refusing} }}, {{ later.example = smtp:[127.0.0.1]:{closed} }},
    {{ away.example = discard:away }} }}
relay_domains = gone.example later.example away.example
smtpd_sender_restrictions = check_sender_access inline:{{ {{ spam@there.example = REJECT spam }},
    {{ odd@there.example = HOLD odd }}, {{ junk@there.example = DISCARD junk }}, {{ wait@there.example = DEFER later }} }},
    warn_if_reject reject_non_fqdn_sender
smtpd_recipient_restrictions = reject_unauth_destination
bounce_notice_recipient = nobody@localhost
"""
# how many of: sender, recipients, what becomes of the message
DAY = [
    (40, "a@there.example", ["u{n}@localhost"], "delivered"),
    (15, "b@there.example", ["u1@localhost", "u2@localhost", "u3@away.example"], "delivered"),
    (7, "c@there.example", ["x{n}@later.example"], "deferred"),
    (6, "", ["refused{n}@gone.example"], "bounced"),
    (5, "odd@there.example", ["u@localhost"], "held"),
    (4, "junk@there.example", ["u@localhost"], "discarded"),
    (9, "spam@there.example", ["u@localhost"], "rejected"),
    (8, "d@there.example", ["u@elsewhere.example"], "rejected"),
    (3, "wait@there.example", ["u@localhost"], "rejected"),
    (2, "short", ["u@localhost"], "warned"),
]
REFUSED = {"rejected"}
STEPS = ["client=", "message-id=", "from=", "to=", "removed"]


def send_the_day(port):
    """{what: how many}: messages, recipients and all that pflogsumm counts."""
    total = collections.Counter()
    recipients = set()
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.ehlo("client.example")
        for count, sender, to, fate in DAY:
            for n in range(count):
                names = [name.format(n=n) for name in to]
                try:
                    client.sendmail(sender, names, f"Subject: {n}\r\n\r\n" + "text\r\n" * n)
                    assert fate not in REFUSED
                except (smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused):
                    assert fate in REFUSED, (sender, fate)
                    total["rejected"] += 1
                    client.rset()
                    continue
                if fate == "warned":
                    total["reject warnings"] += 1
                if fate in ("held", "discarded"):
                    total[fate] += 1
                total["received"] += 1  # by "client=": what is discarded later, too
                if fate in ("delivered", "warned"):
                    total["delivered"] += len(names)
                if fate in ("deferred", "bounced"):
                    total[fate] += len(names)
                if fate in ("delivered", "warned", "deferred", "bounced"):
                    recipients |= set(names)
    return total, recipients


def in_order(log):
    """On a machine that is busy with other tests a process may be later with its lines than the 10 ms for which postlogd
    waits; pflogsumm forgets a sender whose line comes behind the delivery. What is tested here is the words."""
    lines, at = log.splitlines(keepends=True), collections.defaultdict(list)
    for i, line in enumerate(lines):
        found = re.search(r"\]: ([0-9A-F]{8,}): (client=|message-id=|from=|to=|removed)", line)
        if found:
            at[found[1]].append((STEPS.index(found[2]), i))
    for steps in at.values():
        new = [lines[i] for _, i in sorted(steps)]
        for (_, i), line in zip(steps, new):
            lines[i] = line
    return "".join(lines)


def report(log):
    """The grand totals and the whole text."""
    text = subprocess.run(["pflogsumm"], input=in_order(log), capture_output=True, text=True, check=True, timeout=60).stdout
    totals = {name.strip(): int(number) for number, name in
              re.findall(r"^ +(\d+) {2,3}([a-z][a-z/ ]+?)(?:  ?\(.*\))?$", text.split("Per-Hour")[0], re.M)}
    return totals, text


def check(server):
    counted, recipients = send_the_day(server.port)
    done = counted["delivered"] + counted["deferred"] + counted["bounced"]
    wait_for(lambda: len(re.findall(r" status=(?:sent|deferred|bounced)", server.log())) >= done, 60, "all deliveries")
    wait_for(lambda: "disconnect from" in server.log(), what="the end of the session")
    totals, text = report(server.log())
    print(text)
    for name in ("received", "delivered", "deferred", "bounced", "rejected", "reject warnings", "held", "discarded"):
        assert totals[name] == counted[name], (name, totals, counted)
    taken = {name for name in recipients if "localhost" in name or "away" in name}
    assert totals["recipients"] == len(taken)
    section = text.split("Recipients by message count")[1].split("Senders by message size")[0]
    assert {line.split()[1] for line in section.splitlines()[2:] if line} == taken
    assert "Messages with no size data" not in text
    return text


@pytest.fixture
def main_cf():
    """With a server that refuses recipients, and a port where nobody is."""
    sink = Sink()
    yield MAIN_CF.format(closed=free_port(), refusing=sink.port)
    sink.close()


DETAIL = """\
    Relay access denied (total: 8)
    Sender address rejected: later (total: 3)
           3   wait@there.example
    Sender address rejected: spam (total: 9)
           9   spam@there.example
    Sender address rejected: need fully-qualified address (total: 2)
           2   short
    Sender address odd (total: 5)
    Sender address junk (total: 4)
         6   5.1.1 unknown (in reply to RCPT TO command)
"""


def test_busy_day(make_instance, main_cf):
    text = check(make_instance(main_cf=main_cf))
    assert [line for line in DETAIL.splitlines() if line not in text.splitlines()] == []
    for line in (r"^ +40 +a@there\.example$", r"^ +15 +b@there\.example$", r"^ +\d+ +127.0.0.1\[127.0.0.1\]:\d+: "
                 "Connection refused$", "^Panics: none", "^Fatal Errors: none"):
        assert re.search(line, text, re.M), line


@pytest.mark.skipif(Oracle.why_not() is not None, reason=str(Oracle.why_not()))
def test_same_day_at_debians(main_cf, make_instance):
    """The same report, but for what a server is called, the length of its header, and which programs warn of what."""
    with Oracle(main_cf=main_cf) as debian:
        theirs = check(debian)
    ours = check(make_instance(main_cf=main_cf))

    def words(text):
        """Lines with numbers of messages; without sizes, delays and hours, and what differs from run to run."""
        text = re.split(r"^Warnings(?::|$)", text, flags=re.M)[0].replace("mail.example", "HOST").replace("oracle.example", "HOST")
        text = re.sub(r"(?:by message size|message deferral detail)\n.*?\n\n", "", text, flags=re.S)
        text = re.sub(r"^ +\d+ +bytes .*$|^ +\d{4}-\d{4}.*$", "", text, flags=re.M)
        text = re.sub(r"^( +\d+) +\d+( +\d+) +[\d.]+ s +[\d.]+ s", r"\1\2", text, flags=re.M)
        return re.sub(r"^( +\d+) +\d+ {2,}(\S+)$", r"\1 \2", text, flags=re.M)
    assert words(ours).splitlines() == words(theirs).splitlines()
