"""The parameters of virtual(8), pipe(8), spawn(8), error(8) and discard(8): each with a value that shows in what is
delivered, logged or run, beside what is there without it."""
import fcntl
import os
import pathlib
import pwd
import re
import shutil
import socket
import tempfile
import threading
import time

import pytest

from instance import free_port, wait_for

USER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
IDS = pwd.getpwnam(USER)


@pytest.fixture
def top():
    path = pathlib.Path(tempfile.mkdtemp(prefix="parameters-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def virtual_cf(top, extra=""):
    settings = {
        "smtpd_reject_unlisted_recipient": "no", "recipient_delimiter": "+", "virtual_mailbox_domains": "v.example",
        "virtual_mailbox_base": str(top), "virtual_mailbox_maps": "inline:{{anna@v.example=anna}, {dir@v.example=dir/}}",
        "virtual_uid_maps": f"static:{IDS.pw_uid}", "virtual_gid_maps": f"static:{IDS.pw_gid}", "virtual_minimum_uid": "1",
        "deliver_lock_attempts": "2",
    }
    for line in extra.splitlines():
        name, value = line.split(" = ", 1)
        settings[name] = value
    return "".join(f"{name} = {value}\n" for name, value in settings.items())


def send(mail, to, sender="a@elsewhere.example", body="Subject: x\r\n\r\nhello\r\n"):
    with mail.smtp() as smtp:
        smtp.sendmail(sender, [to], body)


def outcome(mail, to="anna@v.example", **how):
    send(mail, to, **how)
    return wait_for(lambda: next((line for line in mail.log().splitlines() if "status=" in line and "to=<" in line), None))


def own_file(path, text=""):
    path.write_text(text)
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, IDS.pw_uid, IDS.pw_gid)


# parameter, its value, what is prepared, what the log line says with it and what without it
VIRTUAL = [
    ("virtual_mailbox_base", "TOP/elsewhere", None, "/elsewhere/anna: ", "status=sent"),
    ("virtual_mailbox_maps", "inline:{x=y}", None, 'dsn=5.1.1, status=bounced (unknown user: "anna@v.example")', "status=sent"),
    ("virtual_uid_maps", "static:root", None, "dsn=4.3.5, status=deferred (mail system configuration error)", "status=sent"),
    ("virtual_gid_maps", "static:root", None, "dsn=4.3.5, status=deferred (mail system configuration error)", "status=sent"),
    ("virtual_minimum_uid", "100000000", None, "dsn=4.3.5, status=deferred (mail system configuration error)", "status=sent"),
    ("virtual_mailbox_limit", "2000\nmessage_size_limit = 2000",
     lambda top: own_file(top / "anna", "From x\n" + "y" * 1900 + "\n\n"), "dsn=5.2.2, status=bounced", "status=sent"),
    ("virtual_mailbox_lock", "fcntl", lambda top: own_file(top / "anna.lock"), "status=sent", "unable to create lock file"),
    ("stale_lock_time", "1s\ndeliver_lock_attempts = 5", lambda top: own_file(top / "anna.lock"), "status=sent",
     "unable to create lock file"),
    ("virtual_delivery_status_filter", "inline:{x=y} regexp:{{/^2.0.0 delivered to (mailbox)/ 2.9.9 into the $$1}}", None,
     "dsn=2.9.9, status=sent (into the mailbox)", "(delivered to mailbox)"),
    ("virtual_transport", "error:5.7.7 closed", None, "relay=none, ", "relay=virtual, "),
    ("delay_logging_resolution_limit", "6", None, r"delays=\S*\.\d{3}", "status=sent"),
]


@pytest.mark.parametrize("parameter, value, prepare, with_it, without", VIRTUAL, ids=[row[0] for row in VIRTUAL])
def test_virtual(make_instance, top, parameter, value, prepare, with_it, without):
    lines = []
    for extra in (f"{parameter} = {value.replace('TOP', str(top))}", ""):
        for path in top.iterdir():
            path.unlink()
        if prepare:
            prepare(top)
        mail = make_instance(main_cf=virtual_cf(top, extra), user=USER if os.geteuid() == 0 else None)
        lines.append(outcome(mail))
    plain = parameter != "delay_logging_resolution_limit"
    assert with_it in lines[0] if plain else re.search(with_it, lines[0]), lines[0]
    assert without in lines[1], lines[1]
    assert with_it not in lines[1] if plain else not re.search(with_it, lines[1])


def test_enable_original_recipient(make_instance, top):
    for value, there in (("yes", True), ("no", False)):
        mail = make_instance(main_cf=virtual_cf(top, f"enable_original_recipient = {value}\n"
                                                "virtual_alias_maps = inline:{info@v.example=dir@v.example}"),
                             user=USER if os.geteuid() == 0 else None)
        send(mail, "info@v.example")
        mail.wait_log("status=sent")
        [path] = (top / "dir/new").iterdir()
        assert ("\nX-Original-To: info@v.example\n" in path.read_text()) is there
        path.unlink()


def test_lock_attempts_and_delay(make_instance, top):
    """A lock that is let go after a second: enough attempts, or a long enough wait between two, get it."""
    for attempts, delay, sent in ((1, "1s", False), (20, "1s", True)):
        own_file(top / "anna")
        mail = make_instance(main_cf=virtual_cf(top, f"deliver_lock_attempts = {attempts}\ndeliver_lock_delay = {delay}\n"
                                                "virtual_mailbox_lock = fcntl"), user=USER if os.geteuid() == 0 else None)
        with open(top / "anna", "a") as f:
            fcntl.lockf(f, fcntl.LOCK_EX)
            send(mail, "anna@v.example")
            if sent:
                time.sleep(1.5)
                assert "status=" not in mail.log()
            else:
                assert "unable to lock for exclusive access" in mail.wait_log("status=deferred")
        if sent:
            mail.wait_log("status=sent")
        (top / "anna").unlink()


def test_strict_mailbox_ownership(make_instance, top):
    if os.geteuid() != 0:
        pytest.skip("only root can make a file of somebody else")
    for value, want in (("yes", "status=deferred (delivery failed to mailbox"), ("no", "status=sent")):
        (top / "anna").write_text("")
        (top / "anna").chmod(0o666)
        mail = make_instance(main_cf=virtual_cf(top, f"strict_mailbox_ownership = {value}"))
        assert want in outcome(mail)


# --- pipe, error, retry, discard ---
def test_recipient_delimiter_of_pipe(make_instance):
    for value, want in (("+", "(x=tag)"), ("-", "(x=)")):
        mail = make_instance(main_cf=f"recipient_delimiter = {value}\ntransport_maps = inline:{{p.example=p:}}\n"
                             "smtpd_reject_unlisted_recipient = no\n", user=USER if os.geteuid() == 0 else None,
                             master_extra=f"p unix - n n - - pipe user={USER} argv=/bin/echo x=$extension\n")
        assert want in outcome(mail, "a+tag@p.example")


@pytest.mark.parametrize("transport, want", [
    ("error:5.7.9 closed down", "relay=none, .* dsn=5.7.9, status=bounced \\(closed down\\)"),
    ("error:no code", "dsn=5.0.0, status=bounced \\(no code\\)"),
    ("error:4.1.1 wrong class", "dsn=5.0.0, status=bounced \\(wrong class\\)"),
    ("error:", "dsn=5.0.0, status=bounced \\(Address is undeliverable\\)"),
    ("retry:4.7.9 later", "dsn=4.7.9, status=deferred \\(later\\)"),
    ("retry:no code", "dsn=4.0.0, status=deferred \\(no code\\)"),
    ("discard:gone for good", "relay=none, .* dsn=2.0.0, status=sent \\(gone for good\\)"),
    ("discard:2.7.5 gone", "dsn=2.7.5, status=sent \\(gone\\)"),
    ("discard:", "dsn=2.0.0, status=sent \\(x.example\\)"),
])
def test_text_in_place_of_a_next_hop(make_instance, transport, want):
    mail = make_instance(main_cf=f"transport_maps = inline:{{ {{x.example = {transport}}} }}\n"
                         "smtpd_reject_unlisted_recipient = no\nsmtpd_recipient_restrictions =\n",
                         user=USER if os.geteuid() == 0 else None)
    mail.sendmail("-f", "", "u@x.example")
    line = wait_for(lambda: next((line for line in mail.log().splitlines() if "to=<u@x.example>" in line), None))
    assert re.search(want, line), line


# --- spawn ---
def ask(port, wait=5):
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as s:
        s.shutdown(socket.SHUT_WR)
        said = b""
        while piece := s.recv(4096):
            said += piece
        return said.decode()


@pytest.mark.parametrize("parameter, value, want, otherwise", [
    ("export_environment", "COLOUR=blue", "COLOUR=blue\n", ""),
    ("PORT_time_limit", "1s", "", "late"),
    ("command_time_limit", "1s", "", "late"),
])
def test_spawn(make_instance, parameter, value, want, otherwise):
    said = []
    for given in (True, False):
        port = free_port()
        name = f"127.0.0.1:{port}"
        setting = f"{parameter.replace('PORT', name)} = {value}\n" if given else ""
        command = "env | grep COLOUR" if parameter == "export_environment" else "sleep 3; printf late"
        make_instance(main_cf=setting, user=USER if os.geteuid() == 0 else None,
                      master_extra=f"{name} inet n n n - 0 spawn user={USER} argv=/bin/sh -c {{{command}}}\n")
        said.append(ask(port, 30))
    assert said == [want, otherwise]


def test_maxproc_of_spawn(make_instance):
    """The process limit in master.cf is the most commands at a time."""
    port = free_port()
    make_instance(user=USER if os.geteuid() == 0 else None,
                  master_extra=f"127.0.0.1:{port} inet n n n - 1 spawn user={USER} argv=/bin/sh -c {{date +%s.%N; sleep 1; date +%s.%N}}\n")
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(ask(port, 60))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spans = sorted(tuple(map(float, answer.split())) for answer in answers)
    assert len(spans) == 3 and all(a[1] <= b[0] for a, b in zip(spans, spans[1:])), spans
