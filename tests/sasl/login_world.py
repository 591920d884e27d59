"""What the login tests share: an smtpd that wants logins before it relays, and real clients."""
import smtplib
import subprocess

MAIN_CF = """\
smtpd_sasl_auth_enable = yes
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_error_sleep_time = 0
default_transport = discard:
mynetworks =
"""


def log_in(port, user, password, mechanism=None):
    """The reply to a login; `mechanism`: the only one that is tried."""
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as smtp:
        smtp.ehlo("client.example")
        if mechanism:
            smtp.user, smtp.password = user, password
            authobject = getattr(smtp, "auth_" + mechanism.lower().replace("-", "_"))
            try:
                return smtp.auth(mechanism, authobject)
            except smtplib.SMTPAuthenticationError as e:
                return e.smtp_code, e.smtp_error
        try:
            return smtp.login(user, password)
        except smtplib.SMTPAuthenticationError as e:
            return e.smtp_code, e.smtp_error


def mechanisms(port):
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as smtp:
        smtp.ehlo("client.example")
        return smtp.esmtp_features.get("auth", "").split()


def swaks(port, *args):
    """Send a message as somebody who has logged in; returns swaks's exit status and what was said."""
    done = subprocess.run(["swaks", "--server", f"127.0.0.1:{port}", "--from", "a@here.example", "--to",
                           "b@elsewhere.example", "--helo", "client.example", *args],
                          capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr
