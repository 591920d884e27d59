"""Every example of Postfix's guides to delivery and rewriting, as an administrator would set it up: guides.tsv says which
test runs each."""
import pathlib
import re
import smtplib

import pytest

import guide_rewriting
import guide_standard
import guide_virtual
from guide_world import ME, Far, Scenario, World
from instance import free_port, wait_for

HERE = pathlib.Path(__file__).resolve().parent
TESTS = HERE.parent
SCENARIOS = {**guide_standard.SCENARIOS, **guide_virtual.SCENARIOS, **guide_rewriting.SCENARIOS}
GUIDES = "STANDARD_CONFIGURATION SOHO VIRTUAL ADDRESS_REWRITING BACKSCATTER MAILDROP UUCP VERP".split()
ROWS = [line.split("\t") for line in (HERE / "guides.tsv").read_text().splitlines() if line[:1] != "#"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name):
    with World(SCENARIOS[name]) as world:
        world.play()


# --- what takes more than mail that is sent and seen ---
def test_virus_notices_are_thrown_away():
    """BACKSCATTER: header_checks with DISCARD, by the subject and by a file's name."""
    scenario = Scenario("BACKSCATTER", "virus scanners", (
        "header_checks = pcre:{ {/^Subject: *Your message has A VIRUS/ DISCARD virus notification}\n"
        "    {/^Content-Disposition:.*VirusWarning.txt/ DISCARD virus notification} }\n"), [])
    with World(scenario) as world, world.mail.smtp() as smtp:
        for header in ("Subject: Your message has A VIRUS", "Content-Disposition: attachment; filename=VirusWarning.txt"):
            smtp.sendmail("", [f"{ME}@localhost"], f"{header}\r\n\r\nx\r\n")
            world.mail.wait_log(f"discard: header {header}")
        smtp.sendmail("", [f"{ME}@localhost"], "Subject: Your message\r\n\r\nx\r\n")
        world.mail.wait_log("status=sent (delivered to mailbox)")
        assert world.mail.log().count("to=<") == 1 + 2, "each discarded message has one line, of its discard"


def test_dialup():
    """STANDARD_CONFIGURATION: nothing leaves until somebody says `sendmail -q`, and then all by the provider's host,
    which no MX record is asked for; mailq without a `*` says that all has been tried."""
    scenario = Scenario("STANDARD_CONFIGURATION", "dialup machine", (
        "relayhost = [localhost]\ndefer_transports = smtp\ndisable_dns_lookups = yes\nsmtp_host_lookup = native\n"), [])
    with World(scenario) as world:
        provider = Far("127.0.0.1", world.far.port)
        try:
            world.mail.sendmail("-f", "me@home.example", "a@there.example")
            world.mail.wait_log("status=deferred (deferred transport)")
            listing = world.mail.command("mailq", capture_output=True).stdout
            assert "(deferred transport)" in listing and "*" not in listing
            assert not world.names.asked and not provider.mail
            assert world.mail.command("sendmail", "-q").returncode == 0
            world.mail.wait_log("to=<a@there.example>, relay=localhost[127.0.0.1]:")
            assert not [name for name, kind in world.names.asked if kind in ("A", "MX")]
        finally:
            provider.close()


@pytest.mark.parametrize("overridden", [False, True])
def test_mappings_turned_off(overridden):
    """ADDRESS_REWRITING: a second smtpd with receive_override_options=no_address_mappings maps nothing, and adds no copies."""
    port = free_port()
    scenario = Scenario("ADDRESS_REWRITING", "turned off selectively", (
        "canonical_maps = inline:{ {c@x.example=canonical@x.example} {canonical-me@x.example=x} }\n"
        "masquerade_domains = home.example\nalways_bcc = copy@x.example\n"
        "virtual_alias_maps = inline:{ {v@x.example=virtual@x.example} }\ntransport_maps = inline:{ {x.example=discard:} }\n"), [],
        master_cf=f"127.0.0.1:{port} inet n - n - - smtpd -o receive_override_options=no_address_mappings\n")
    with World(scenario) as world, smtplib.SMTP("127.0.0.1", port if overridden else world.mail.port, timeout=60) as smtp:
        smtp.sendmail("me@deep.home.example", ["c@x.example", "v@x.example"], "Subject: x\r\n\r\nhello\r\n")
        world.mail.wait_log(": removed")
        log = world.mail.log()
        assert set(re.findall(r" to=<(\w+)@x.example>", log)) == ({"c", "v"} if overridden else {"canonical", "virtual", "copy"})
        assert f"from=<me@{'deep.' if overridden else ''}home.example>" in log


def test_reports_for_debugging():
    """ADDRESS_REWRITING: `sendmail -bv` says what would be, `sendmail -v` what was; both name the addresses after rewriting."""
    scenario = Scenario("ADDRESS_REWRITING", "debugging", "virtual_alias_maps = inline:{ {list@x.example=one@y.example} }\n", [])
    for option, action in (("-bv", "deliverable"), ("-v", "relayed")):
        with World(scenario) as world:
            done = world.mail.command("sendmail", option, "-f", f"{ME}@localhost", "list@x.example", input="Subject: x\n\nx\n",
                                      capture_output=True)
            assert done.returncode == 0, done.stderr
            box = world.mail.mail / ME
            wait_for(lambda: box.exists() and f"Action: {action}" in box.read_text(), 30, "the report")
            text = box.read_text()
            assert "Final-Recipient: rfc822; one@y.example" in text and "Original-Recipient: rfc822;list@x.example" in text
            assert ("Diagnostic-Code: smtp; 250 " in text) and "Remote-MTA: dns; y.example" in text
            assert len(world.far.mail) == (1 if option == "-v" else 0)


# --- the table ---
def named_test(where):
    """The function there, or None."""
    path, name = where.split("::")
    return re.search(rf"^def {name.partition('[')[0]}\(", (TESTS / path).read_text(), re.M)


def test_the_table_is_whole():
    """Each guide is there, each scenario has a row, each row names a test there is."""
    assert [guide for guide in GUIDES if not any(row[0] == guide for row in ROWS)] == []
    run = set()
    for guide, section, what in ROWS:
        if "::" in what:
            assert named_test(what), (guide, section, what)
        else:
            scenario = SCENARIOS[what]
            run.add(what)
            assert scenario.guide == guide or guide == "SOHO", (section, what)
    assert set(SCENARIOS) - run == set()
    for line, rows in {"VERP": 6, "SOHO": 5, "MAILDROP": 5, "UUCP": 3, "VIRTUAL": 9, "BACKSCATTER": 5,
                       "STANDARD_CONFIGURATION": 14, "ADDRESS_REWRITING": 25}.items():
        assert sum(row[0] == line for row in ROWS) >= rows, line
