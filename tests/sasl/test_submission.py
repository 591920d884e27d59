"""The stock lines of master.cf for a site's own users: port 587 with STARTTLS, port 465 with TLS from the first byte."""
import re
import smtplib
import ssl

import pytest

from instance import ROOT, free_port
from login_server import LoginServer, word
from sasl.login_world import swaks
from tls.tls_ca import TestCA


def stock_lines(service, port):
    """A service that is commented out in the stock file, with a port of our own."""
    lines = (ROOT / "packaging/master.cf").read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if re.match(rf"#{service}\s", line))
    entry = [lines[first][1:].replace(service, f"127.0.0.1:{port}", 1)]
    for line in lines[first + 1:]:
        if not line.startswith("#  -o"):
            break
        entry.append(line[1:])
    return "\n".join(entry) + "\n"


@pytest.fixture
def site(make_instance, tmp_path):
    chain = TestCA(tmp_path / "ca").make("mail.example")[2]
    submission, submissions = free_port(), free_port()
    mail = make_instance(main_cf=f"""\
smtpd_tls_chain_files = {chain}
smtpd_tls_security_level = may
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/login
smtpd_sasl_security_options = noplaintext, noanonymous
smtpd_sasl_tls_security_options = noanonymous
smtpd_sasl_authenticated_header = yes
mynetworks =
default_transport = hold:
defer_transports = hold
""", master_extra=stock_lines("submission", submission) + stock_lines("submissions", submissions))
    with LoginServer(mail.queue / "private/login") as logins:
        yield mail, submission, submissions, logins


def unverified():
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def test_submission(site):
    mail, port, _, logins = site
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as smtp:
        smtp.ehlo("thunderbird")
        assert "auth" not in smtp.esmtp_features
        assert smtp.docmd("AUTH", "PLAIN " + word("good"))[0] in (503, 530)
        smtp.starttls(context=unverified())
        smtp.ehlo("thunderbird")
        assert smtp.esmtp_features["auth"].split() == ["PLAIN", "LOGIN", "CRAM-MD5", "XMUT"]
        assert smtp.docmd("AUTH", "PLAIN " + word("good")) == (235, b"2.7.0 Authentication successful")
        smtp.sendmail("a@here.example", ["b@elsewhere.example"], "Subject: x\r\n\r\nx\r\n")
    assert logins.lines[-1].split("\t")[-2] == "secured"
    assert "postfix/submission/smtpd[" in mail.wait_log("sasl_method=PLAIN, sasl_username=joe")
    assert swaks(port, "--tls")[0] != 0


def test_submissions(site):
    mail, _, port, _ = site
    with smtplib.SMTP_SSL("127.0.0.1", port, timeout=60, context=unverified()) as smtp:
        smtp.ehlo("outlook")
        assert smtp.docmd("MAIL", "FROM:<a@here.example>")[0] == 250
        assert smtp.docmd("RCPT", "TO:<b@elsewhere.example>")[0] == 554
        smtp.docmd("RSET")
        assert smtp.docmd("AUTH", "LOGIN") == (334, b"Y2hhbA==")
        assert smtp.docmd(word("more"))[0] == 334
        assert smtp.docmd(word("good"))[0] == 235
        assert smtp.docmd("MAIL", "FROM:<a@here.example>")[0] == 250
        assert smtp.docmd("RCPT", "TO:<b@elsewhere.example>")[0] == 250
    assert "postfix/submissions/smtpd[" in mail.wait_log("sasl_method=LOGIN, sasl_username=joe")


def test_login_is_forgotten(site):
    """Port 25 with both: within TLS other mechanisms are there, and nobody is logged in any more."""
    mail = site[0]

    def offers(smtp):
        smtp.ehlo("client.example")
        return smtp.esmtp_features.get("auth", "").split()
    with mail.smtp() as smtp:
        assert offers(smtp) == ["CRAM-MD5", "XMUT"]
        assert smtp.docmd("AUTH", "XMUT " + word("good"))[0] == 235
        smtp.starttls(context=unverified())
        assert offers(smtp) == ["PLAIN", "LOGIN", "CRAM-MD5", "XMUT"]
        assert smtp.docmd("MAIL", "FROM:<a@here.example>")[0] == 250
        assert smtp.docmd("RCPT", "TO:<b@elsewhere.example>")[0] in (454, 554)
        smtp.docmd("RSET")
        assert smtp.docmd("AUTH", "PLAIN " + word("good"))[0] == 235
