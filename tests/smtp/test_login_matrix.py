"""Every mechanism of the SMTP client against real login servers behind an smtpd: Dovecot, and Cyrus SASL; the right password
and a wrong one; with our own mechanisms and with the Cyrus library's."""
import os
import re
import smtplib

import pytest

from instance import Instance, wait_for
from sasl.test_cyrus_login import CYRUS, SASLAUTHD, sasldb
from sasl.test_dovecot_login import dovecot  # noqa: F401 (a fixture)

USER = "nobody" if os.geteuid() == 0 else None
NATIVE = ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"]
LIBRARY = [*NATIVE, "DIGEST-MD5"]


def run(server_port, offered):
    """What becomes of a message a mechanism and password, and the client's log."""
    rows = [(kind, mechanism, password) for kind, mechanisms in (("native", NATIVE), ("cyrus", LIBRARY))
            for mechanism in mechanisms if mechanism in offered for password in ("geheim", "falsch")]
    nexthop = f"[127.0.0.1]:{server_port}"
    services = "".join(
        f"s{i} unix - - n - - smtp -o smtp_sasl_auth_enable=yes -o {{smtp_sasl_security_options=}}"
        f" -o {{smtp_sasl_password_maps=inline:{{{nexthop}=anna:{password}}}}} -o smtp_sasl_type={kind}"
        f" -o smtp_sasl_mechanism_filter={mechanism}\n" for i, (kind, mechanism, password) in enumerate(rows))
    routes = ", ".join(f"{{d{i}.example = s{i}:{nexthop}}}" for i in range(len(rows)))
    client = Instance(main_cf=f"transport_maps = inline:{{{routes}}}\n", master_extra=services, user=USER, name="client")
    try:
        client.start()
        with smtplib.SMTP("127.0.0.1", client.port, timeout=60) as smtp:
            for i in range(len(rows)):
                smtp.sendmail("me@here.example", [f"x@d{i}.example"], "Subject: x\r\n\r\nhello\r\n")

        def results():
            return dict(re.findall(r"to=<x@d(\d+)\.example>, .* status=(.*)", client.log()))
        wait_for(lambda: len(results()) == len(rows), 90, "all results")
        return {row: results()[str(i)] for i, row in enumerate(rows)}, client.log()
    finally:
        client.stop()


def check(results, log, server):
    for (kind, mechanism, password), result in results.items():
        if password == "geheim":
            assert result.startswith("sent (250 2.0.0 Ok: queued"), (kind, mechanism, result)
        else:
            assert result.startswith("deferred (SASL authentication failed; server 127.0.0.1[127.0.0.1] said: 535 5.7.8"), \
                (kind, mechanism, result)
    used = set(re.findall(r"sasl_method=(\S+), sasl_username=anna", server.log()))
    assert used == {mechanism for _, mechanism, _ in results}
    for text in (log, server.log()):
        assert "geheim" not in text and "falsch" not in text


def test_dovecot(dovecot, monkeypatch):  # noqa: F811
    import sasl.test_dovecot_login as world
    monkeypatch.setattr(world, "DOVECOT", world.DOVECOT.replace(
        "plain login cram-md5 scram-sha-256", "plain login cram-md5 digest-md5 scram-sha-1 scram-sha-256"))
    server, _ = dovecot("smtpd_sasl_security_options = noanonymous\n")
    results, log = run(server.port, LIBRARY)
    assert len(results) == 2 * (len(NATIVE) + len(LIBRARY))
    check(results, log, server)


@pytest.mark.skipif(not os.path.exists(SASLAUTHD), reason="no Cyrus SASL programs (sasl2-bin)")
def test_cyrus(make_instance):
    server = make_instance(start=False, main_cf=CYRUS)
    conf = sasldb(server.directory)
    text = (conf / "smtpd.conf").read_text()
    (conf / "smtpd.conf").write_text(re.sub(r"mech_list:.*", "mech_list: " + " ".join(LIBRARY), text))
    server.extra += f"cyrus_sasl_config_path = {conf}\n"
    server.write_config()
    server.start()
    results, log = run(server.port, LIBRARY)
    check(results, log, server)
