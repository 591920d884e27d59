"""Parameters of local(8), each with what is seen only because of it: who delivers instead of the mailbox, and who is told."""
import os
import pathlib
import pwd
import socket

import pytest

ME = pwd.getpwuid(os.geteuid()).pw_name
NOBODY = "angarium-no-such-user"
BASE = "smtpd_reject_unlisted_recipient = no\nrecipient_delimiter = +\nminimal_backoff_time = 3000s\n"
BOX = "dsn=2.0.0, status=sent (delivered to mailbox)"
UNKNOWN = f'dsn=5.1.1, status=bounced (unknown user: "{NOBODY}")'

# parameter: (main.cf, [(recipient, end of its log line)])
ROWS = {
    "none of them": ("", [(ME, BOX), (NOBODY, UNKNOWN)]),
    "mailbox_transport": ("mailbox_transport = discard:taken\n", [
        (ME, "dsn=2.0.0, status=sent (taken)"), (NOBODY, "status=sent (taken)")]),
    "mailbox_transport_maps": (
        f"mailbox_transport_maps = inline:{{ {{{ME}=discard:taken}} }}\n",
        [(f"{ME}+ext", "status=sent (taken)"), (NOBODY, UNKNOWN)]),
    "mailbox_transport behind its tables": (
        f"mailbox_transport_maps = inline:{{ {{{ME}=error:5.2.1 closed}} }}\nmailbox_transport = discard:others\n",
        [(ME, "dsn=5.2.1, status=bounced (closed)"), (NOBODY, "status=sent (others)")]),
    "fallback_transport": ("fallback_transport = discard:fallen\n", [(ME, BOX), (NOBODY, "status=sent (fallen)")]),
    "fallback_transport_maps": (
        f"fallback_transport_maps = inline:{{ {{{NOBODY}=discard:listed}}, {{{ME}=discard:never}} }}\n"
        "fallback_transport = discard:fallen\n",
        [(ME, BOX), (f"{NOBODY}+x", "status=sent (listed)"), (f"{NOBODY}-2", "status=sent (fallen)")]),
    "mailbox_command_maps": (
        f"mailbox_command_maps = inline:{{ {{{ME}=exit 0}} }}\n",
        [(f"{ME}+ext", "status=sent (delivered to command: exit 0)"), (NOBODY, UNKNOWN)]),
    "mailbox_command behind its tables": (
        "mailbox_command_maps = inline:{ {other=exit 0} }\nmailbox_command = exit 77\n",
        [(ME, "dsn=5.7.0, status=bounced (permission denied)")]),
    "tables that fail": (
        "mailbox_command_maps = fail:x\nfallback_transport_maps = fail:y\n",
        [(ME, "dsn=4.3.0, status=deferred (table lookup failure)"),
         (NOBODY, "dsn=4.3.0, status=deferred (table lookup failure)")]),
    "transports that cannot be had": (
        f"mailbox_transport_maps = inline:{{ {{{ME}=local}} }}\nfallback_transport = nowhere:x\n",
        [(ME, "dsn=4.3.5, status=deferred (mail system configuration error)"),
         (NOBODY, "dsn=4.3.0, status=deferred (mail transport unavailable)")]),
}


def send(instance, *names):
    with instance.smtp() as s:
        s.sendmail("sender@mail.example", [f"{name}@mail.example" for name in names], "Subject: x\r\n\r\nhello\r\n")


@pytest.mark.parametrize("row", ROWS)
def test_who_delivers(make_instance, row):
    main_cf, results = ROWS[row]
    i = make_instance(main_cf=BASE + "biff = no\n" + main_cf)
    send(i, *(name for name, _ in results))
    for name, end in results:
        assert i.wait_log(f": to=<{name}@mail.example>, ").endswith(end)


def home_is_missing(name):
    return not pathlib.Path(pwd.getpwnam(name).pw_dir).exists()


@pytest.mark.skipif(not home_is_missing("nobody"), reason="nobody has a home here")
@pytest.mark.parametrize("value", ["yes", "no"])
def test_require_home_directory(make_instance, value):
    i = make_instance(main_cf=BASE + f"biff = no\nrequire_home_directory = {value}\n")
    send(i, "nobody", ME)
    line = i.wait_log("to=<nobody@mail.example>, ")
    home = pwd.getpwnam("nobody").pw_dir
    waits = f"dsn=4.3.0, status=deferred (cannot access home directory {home}: No such file or directory)"
    assert (waits if value == "yes" else BOX) in line
    assert (i.mail / "nobody").exists() == (value == "no")
    assert BOX in i.wait_log(f"to=<{ME}@mail.example>, ")


def test_biff(make_instance):
    """The user and where the new message begins; nothing with `biff = no`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.bind(("127.0.0.1", 512))
        except OSError as e:
            pytest.skip(f"cannot listen at biff's port: {e.strerror}")
        s.setblocking(False)

        def heard():
            """What was said of our mailboxes: other instances on this machine may speak as well."""
            texts = set()
            while True:
                try:
                    texts.add(s.recv(400).decode())
                except BlockingIOError:
                    return texts & {"nobody@24681", "nobody@24683"}

        for value, size in (("yes", 24681), ("no", 24683)):
            i = make_instance(main_cf=BASE + f"biff = {value}\n")
            mailbox = i.mail / "nobody"
            mailbox.write_text("x" * (size - 2) + "\n\n")
            os.chown(mailbox, pwd.getpwnam("nobody").pw_uid, -1)
            send(i, "nobody")
            assert BOX in i.wait_log("to=<nobody@mail.example>, ")
            assert heard() == ({"nobody@24681"} if value == "yes" else set())
