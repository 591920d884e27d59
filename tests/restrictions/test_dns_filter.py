"""smtpd_dns_reply_filter: records that are not to be seen."""
import pytest

from instance import Instance
from name_server import Names

ZONE = {
    ("good.example", "MX"): (60, ["10 mx.good.example."]),
    ("mx.good.example", "A"): (60, ["192.0.2.1"]),
    ("parked.example", "MX"): (60, ["10 parking.example."]),
    ("both.example", "MX"): (60, ["10 parking.example.", "20 mx.good.example."]),
    ("wild.example", "A"): (3600, ["192.0.2.66"]),
    ("broken.example", "MX"): (60, ["10 mx.good.example."]),
}
MAIN = """smtpd_sender_restrictions = reject_unknown_sender_domain
smtpd_delay_reject = no
unknown_address_reject_code = 550
unknown_address_tempfail_action = defer
smtpd_dns_reply_filter = pcre:{{/ IN MX 10 parking.example.$$/ IGNORE}, {/^wild.example. 3600 IN A 192.0.2.66$$/ ignore it},
    {/^broken.example. 60 IN MX/ DROP}}
"""
CASES = [("good", 250), ("both", 250), ("parked", 550), ("wild", 550), ("broken", 450)]


@pytest.fixture(scope="module")
def filtered():
    names = Names(ZONE)
    with Instance(main_cf=MAIN, dns=names.address, name="dnsfilter") as mail:
        yield mail
    names.close()


@pytest.mark.parametrize("domain, code", CASES)
def test_filter(filtered, domain, code):
    with filtered.smtp() as smtp:
        smtp.ehlo("x")
        assert smtp.mail(f"a@{domain}.example")[0] == code


def test_log(filtered):
    with filtered.smtp() as smtp:
        smtp.ehlo("x")
        smtp.mail("a@parked.example")
        smtp.mail("a@broken.example")
    filtered.wait_log("ignoring DNS RR: parked.example. 60 IN MX 10 parking.example.")
    filtered.wait_log('unknown action "DROP": there is only IGNORE')
