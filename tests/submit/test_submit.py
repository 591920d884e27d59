"""Local submission from sendmail to the mailbox: options, headers, recipients, what is refused, and what is never lost."""
import mailbox
import os
import pwd
import re
import resource
import signal
import struct
import subprocess

import pytest

from instance import wait_for

USER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
ME = f"{USER}@mail.example"


@pytest.fixture
def mail(make_instance):
    def make(main_cf="", **kwargs):
        return make_instance(user=USER if os.geteuid() == 0 else None,
                             main_cf="recipient_delimiter = +\nlocal_header_rewrite_clients = \n" + main_cf, **kwargs)
    return make


def mbox(instance):
    path = instance.mail / USER
    return list(mailbox.mbox(path, create=False)) if path.exists() else []


def delivered(instance, count=1):
    """The messages in the mailbox, once there are `count` and the queue is empty."""
    wait_for(lambda: len(mbox(instance)) >= count and instance.queue_is_empty(), what=f"{count} messages")
    messages = mbox(instance)
    assert len(messages) == count
    return messages


def recipients(instance):
    return sorted(re.findall(r"to=<([^>]*)>, .*status=sent", instance.log()))


def refused(done, text):
    assert done.returncode == 75, done
    assert text in done.stderr, done.stderr


# --- headers ---

def test_missing_headers_are_added(mail):
    instance = mail()
    assert instance.sendmail("-f", "me", ME, message="Subject: s\n\nbody\n").returncode == 0
    message, = delivered(instance)
    uid = pwd.getpwnam(USER).pw_uid
    assert f"by mail.example (Angarium, from userid {uid})" in message["Received"]
    assert re.fullmatch(r"<\d{14}\.[0-9A-F]+@mail\.example>", message["Message-Id"])
    assert re.fullmatch(r"\w{3}, \d+ \w{3} \d{4} [\d:]{8} [-+]\d{4} \(\w+\)", message["Date"])
    assert "me@mail.example" in message["From"]
    assert message["To"] is None
    assert message.get_payload() == "body\n" or message.get_payload() == "body\n\n"
    log = instance.log()
    queue_id = re.search(rf"pickup\[\d+\]: ([0-9A-F]+): uid={uid} from=<me>", log).group(1)
    assert f"cleanup[" in log and f"{queue_id}: message-id={message['Message-Id']}" in log
    assert re.search(rf"qmgr\[\d+\]: {queue_id}: from=<me@mail.example>, size=\d+, nrcpt=1 \(queue active\)", log)


def test_own_headers_are_kept(mail):
    instance = mail()
    text = ("From: A <a>\nTo: b, C <c@elsewhere.example>\nDate: Thu, 1 Jan 1970 00:00:00 +0000\nMessage-Id: <x@y>\n"
            "Return-Path: <z>\nContent-Length: 7\nX: kept\n\nbody\n")
    assert instance.sendmail(ME, message=text).returncode == 0
    message, = delivered(instance)
    assert message["From"] == "A <a@mail.example>"
    assert message["To"] == "b@mail.example, C <c@elsewhere.example>"
    assert message["Date"] == "Thu, 1 Jan 1970 00:00:00 +0000" and message["Message-Id"] == "<x@y>"
    assert message["X"] == "kept" and message["Content-Length"] is None
    assert "<z>" not in str(message)


@pytest.mark.parametrize("name, want", [
    ("Full Name", "Full Name <me@mail.example>"),
    ('Q "uo" T. e', '"Q \\"uo\\" T. e" <me@mail.example>'),
    ("ev\nil: x\r\n\n\x07end", "me@mail.example>"),
])
def test_full_name_is_one_header_line(mail, name, want):
    instance = mail()
    assert instance.sendmail("-F", name, "-f", "me", ME).returncode == 0
    message, = delivered(instance)
    assert message["From"].endswith(want)
    assert message["il"] is None
    assert not set(message["From"]) & set("\r\n\x07")


def test_obsolete_from_and_undisclosed_recipients(mail):
    instance = mail("header_from_format = obsolete\nundisclosed_recipients_header = To: undisclosed-recipients:;\n")
    assert instance.sendmail("-F", "Me (x)", "-f", "me", ME).returncode == 0
    message, = delivered(instance)
    assert message["From"] == "me@mail.example (Me \\(x\\))"
    assert message["To"] == "undisclosed-recipients:;"


def test_gateway_mail_is_not_made_ours(mail):
    instance = mail()
    assert instance.sendmail("-G", "-f", "me", ME, message="To: x\n\nbody\n").returncode == 0
    message, = delivered(instance)
    assert message["To"] == "x" and message["From"] is None and message["Message-Id"] is None


def test_stray_cr(mail):
    instance = mail()
    assert instance.sendmail("-f", "me", ME, message="Subject: a\rBcc: b\r\n\r\nc\rd\r\ne\n").returncode == 0
    message, = delivered(instance)
    assert message["Subject"] == "a Bcc: b"
    assert "c d\ne\n" in message.get_payload()
    assert b"\r" not in (instance.mail / USER).read_bytes()


def test_header_without_its_empty_line(mail):
    instance = mail()
    assert instance.sendmail("-f", "me", ME, message="Subject: s\nno header line\nmore: x\n").returncode == 0
    message, = delivered(instance)
    assert message["Subject"] == "s" and message["more"] is None and message["From"]
    assert message.get_payload().startswith("no header line\nmore: x\n")


# --- recipients ---

def test_extracted_recipients_and_bcc(mail):
    instance = mail()
    text = f"From: me\nTo: {USER}+a@mail.example, \"X, Y\" <{USER}+b@mail.example>\nCc: {USER}+c\nBcc:\n {USER}+d\n\nbody\n"
    assert instance.sendmail("-t", f"{USER}+e", message=text).returncode == 0
    for message in delivered(instance, 5):
        assert message["Bcc"] is None and message["Cc"] == f"{USER}+c@mail.example"
    assert recipients(instance) == [f"{USER}+{c}@mail.example" for c in "abcde"]


def test_resent_recipients_alone(mail):
    instance = mail()
    text = f"From: me\nTo: {USER}+a\nBcc: {USER}+b\nResent-To: {USER}+c\nResent-From: r\n\nbody\n"
    assert instance.sendmail("-t", message=text).returncode == 0
    message, = delivered(instance)
    assert recipients(instance) == [f"{USER}+c@mail.example"]
    assert message["Resent-Message-Id"] and message["Resent-Date"] and message["Resent-From"] == "r@mail.example"
    assert message["Message-Id"] is None


def test_aliases_copies_and_duplicates(mail):
    instance = mail(f"virtual_alias_maps = inline:{{ {{team={USER}+a {USER}+b}} }}\nalways_bcc = {USER}+copy\n"
                    f"canonical_maps = inline:{{ {{old={USER}+new}} }}\nenable_original_recipient = no\n")
    assert instance.sendmail("-f", "old", "team", f"{USER}+a", "old", "old@mail.example").returncode == 0
    messages = delivered(instance, 4)
    assert recipients(instance) == [f"{USER}+{c}@mail.example" for c in ("a", "b", "copy", "new")]
    assert messages[0]["From"].endswith(f"<{USER}+new@mail.example>") or \
        messages[0]["From"] == f"{USER}+new@mail.example"


def test_alias_loop_waits(mail):
    instance = mail("virtual_alias_maps = inline:{ {a=b}, {b=a} }\n")
    assert instance.sendmail("-f", "me", "a").returncode == 0
    instance.wait_log("unreasonable virtual_alias_maps map nesting for a@mail.example "
                      "-- message not accepted, try again later")
    assert any((instance.queue / "maildrop").iterdir())


# --- the end of input ---

@pytest.mark.parametrize("options, kept", [((), False), (("-i",), True), (("-oi",), True)])
def test_dot(mail, options, kept):
    instance = mail()
    assert instance.sendmail(*options, "-f", "me", ME, message="Subject: s\n\none\n.\ntwo\n").returncode == 0
    message, = delivered(instance)
    assert ("two" in message.get_payload()) == kept


def test_mailbox_lines_at_the_start(mail):
    instance = mail()
    text = "From a@b Thu Jan  1\n>From c@d remote\nSubject: s\n\nFrom here on\n"
    assert instance.sendmail("-f", "me", ME, message=text).returncode == 0
    message, = delivered(instance)
    assert message["Subject"] == "s" and "From here on\n" in message.get_payload()
    assert "remote" not in str(message)


# --- options that Postfix ignores, and the ones that run something else ---

def test_ignored_options(mail):
    instance = mail()
    options = "-A c -h 3 -L tag -m -U -x -p ESMTP -e m -c -o7 -om -oee -oQ/x -q30m -bm -O foo=bar -X /dev/null".split()
    assert instance.sendmail(*options, "-f", "me", "--", ME).returncode == 0
    delivered(instance)


def test_dsn_options_reach_the_queue(mail):
    instance = mail("defer_transports = local\n")
    assert instance.sendmail("-N", "success,delay", "-R", "hdrs", "-V", "some=id", "-f", "me", ME).returncode == 0
    instance.wait_log("status=deferred")
    stored = next(p for p in (instance.queue / "deferred").rglob("*") if p.is_file()).read_bytes()
    assert b"some=id" in stored


@pytest.mark.parametrize("args, text", [
    ((), "Recipient addresses must be specified on the command line or via the -t option"),
    (("-t",), "No recipient addresses found in message header"),
    (("-B", "9BIT", "x"), "fatal: -B option needs 8BITMIME or 7BIT"),
    (("-k", "x"), "fatal: usage: sendmail [options]"),
    (("-bz",), "fatal: unsupported: -bz"),
    (("-bv", "-t", "x"), "fatal: -t option cannot be used with -bv"),
    (("-XV!!", "x"), "-V requires two characters from -=+"),
    (("-n", "x"), "fatal: -n option not supported"),
    (("-qSsite",), "fatal: -qS is not implemented"),
    (("-q", "x"), "fatal: flush queue mode requires no recipient"),
    (("-bp", "x"), "fatal: display queue mode requires no recipient"),
    (("-bd", "x"), "fatal: daemon mode requires no recipient"),
    (("-bi", "x"), "fatal: alias initialization mode requires no recipient"),
    (("-bs", "x"), "fatal: stand-alone mode requires no recipient"),
    (("-bs", "-t"), "fatal: -t can be used only in delivery mode"),
])
def test_refused_options(mail, args, text):
    instance = mail(start=False)
    (instance.queue / "maildrop").mkdir(exist_ok=True)
    if os.geteuid() == 0:
        os.chown(instance.queue / "maildrop", pwd.getpwnam(USER).pw_uid, -1)
    refused(instance.sendmail(*args), text)
    assert not any((instance.queue / "maildrop").iterdir())


def test_warned_options(mail):
    instance = mail()
    done = instance.sendmail("-N", "bogus", "-R", "bogus", "-f", "a@b, c@d", ME)
    assert done.returncode == 0
    for text in ('unknown DSN NOTIFY command value "bogus" in "bogus"', "bad -N option value -- ignored",
                 "bad -R option value -- ignored", "-f option specified malformed sender: a@b, c@d"):
        assert f"sendmail: warning: {text}" in done.stderr
    instance.wait_log("from=<a@b>")


# --- limits, loops, and what is refused ---

def test_hop_loop_is_returned(mail):
    instance = mail("hopcount_limit = 5\n")
    text = "".join(f"Received: from h{i} by h{i + 1}; Thu, 1 Jan 1970 00:00:00 +0000\n" for i in range(5))
    assert instance.sendmail("-f", ME, "someone@elsewhere.example", message=text + "\nbody\n").returncode == 0
    instance.wait_log("message rejected: hopcount exceeded")
    instance.wait_log("to=<someone@elsewhere.example>, relay=none")
    assert "dsn=5.4.0, status=bounced (too many hops)" in instance.log()


def test_hops_within_the_limit(mail):
    instance = mail("hopcount_limit = 5\n")
    text = "".join(f"Received: from h{i} by h{i + 1}; Thu, 1 Jan 1970 00:00:00 +0000\n" for i in range(3))
    assert instance.sendmail("-f", "me", ME, message=text + "\nbody\n").returncode == 0
    delivered(instance)


def test_too_large(mail):
    instance = mail("message_size_limit = 10000\n")
    refused(instance.sendmail("-f", "me", ME, message="Subject: s\n\n" + "x" * 20000), "me(")
    done = instance.sendmail("-f", "me", ME, message="Subject: s\n\n" + "x" * 20000)
    assert "message file too big" in done.stderr
    assert instance.queue_is_empty()
    assert instance.sendmail("-f", "me", ME, message="Subject: s\n\n" + "x" * 5000).returncode == 0
    delivered(instance)


def test_too_many_recipients(mail):
    """What stands beside the content is bounded, too."""
    instance = mail()
    record = struct.pack("<BIB", 6, 250, 0) + b"x" * 249
    many = struct.pack("<BI", 1, 1) + b"a" + record * (65 * 1024 * 1024 // len(record))
    done = instance.command("postdrop", "-r", input=many, capture_output=True, text=False)
    assert done.returncode == 65 and b"too many recipients" in done.stdout
    assert instance.queue_is_empty()


def test_unauthorized_user(mail):
    instance = mail("authorized_submit_users = !%s, static:all\n" % USER)
    refused(instance.sendmail(ME), f"User {USER}({pwd.getpwnam(USER).pw_uid}) is not allowed to submit mail")
    assert instance.queue_is_empty()


def test_message_reject_characters(mail):
    instance = mail("message_reject_characters = \\0\n")
    assert instance.sendmail("-f", ME, "x@elsewhere.example", message="Subject: s\n\na\0b\n").returncode == 0
    line = instance.wait_log("reject: content")
    assert f"from local; from=<{ME}> to=<x@elsewhere.example>: disallowed character" in line
    instance.wait_log("status=bounced (disallowed character)")


# --- nothing is lost, nothing is left ---

def test_the_mail_system_is_down(mail):
    instance = mail()
    instance.postfix("stop")
    wait_for(lambda: not instance.pids())
    assert instance.sendmail("-f", "me", ME).returncode == 0
    assert len(list((instance.queue / "maildrop").iterdir())) == 1
    instance.start()
    delivered(instance)


def test_disk_full(mail):
    """A file size limit stands in for a full disk: exit status 75, nothing left behind."""
    instance = mail()

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000))

    done = instance.command("sendmail", "-f", "me", ME, input="Subject: s\n\n" + "line\n" * 40000, capture_output=True,
                            preexec_fn=limit)
    refused(done, "queue file write error")
    assert not any((instance.queue / "maildrop").iterdir())


def test_interrupted(mail):
    """Killed in the middle of its input, sendmail leaves nothing in the queue."""
    instance = mail()
    as_user = {"user": USER, "group": instance._group_of(USER), "extra_groups": []} if os.geteuid() == 0 else {}
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen([instance.bin / "sendmail", "-f", "me", ME], stdin=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, env=instance.environment(), cwd=instance.directory,
                                   # a test run in the background of a script would hand down an ignored SIGINT
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **as_user)
        process.stdin.write(b"Subject: s\n\n" + b"line\n" * 100000)
        process.stdin.flush()
        wait_for(lambda: any((instance.queue / "maildrop").iterdir()))
        process.send_signal(number)
        process.wait(timeout=20)
        process.stdin.close()
        wait_for(lambda: not any((instance.queue / "maildrop").iterdir()))
    assert mbox(instance) == []


def test_hostile_maildrop_files(mail):
    """What is no whole submission is kept aside or left alone, and other mail goes on."""
    instance = mail()
    instance.postfix("stop")
    wait_for(lambda: not instance.pids())
    drop = instance.queue / "maildrop"
    good = b"\1\3\0\0\0a@b\6" + (len(ME) + 1).to_bytes(4, "little") + b"\0" + ME.encode() + b"\7\2\0\0\0x\n"
    files = {"AAA": good, "BBB": b"garbage", "CCC": b"", "DDD": good.replace(b"a@b", b"a\nb") + b"\10\0\0\0\0",
             "EEE": b"\0\0\0\0\0" + good + b"\10\0\0\0\0"}
    for name, content in files.items():
        (drop / name).write_bytes(content)
        (drop / name).chmod(0o744)
    (drop / "FFF").symlink_to("/etc/passwd")
    os.mkfifo(drop / "FFFF", 0o744)
    instance.start()
    assert instance.sendmail("-f", "me", ME).returncode == 0
    wait_for(lambda: len(mbox(instance)) == 1)
    wait_for(lambda: sorted(p.name for p in (instance.queue / "corrupt").rglob("*") if p.is_file()) == sorted(files))
    assert sorted(p.name for p in drop.iterdir()) == ["FFF", "FFFF"]


@pytest.mark.parametrize("stream", [
    b"", b"\1", b"junk", b"\0\0\0\0\0", b"\1\3\0\0\0a@b\10\0\0\0\0", b"\1\3\0\0\0a\0b\6\2\0\0\0\0x\10\0\0\0\0",
    b"\1\3\0\0\0a@b\6\4\0\0\0\0x\ny\10\0\0\0\0", b"\1\3\0\0\0a@b\6\2\0\0\0\0x\7\1\0\0\0y",
    b"\1\3\0\0\0a@b\6\2\0\0\0\0x\7\377\377\377\377", b"\1\3\0\0\0a@b\6\2\0\0\0\0x\10\0\0\0\0more",
])
def test_postdrop_takes_only_whole_submissions(mail, stream):
    instance = mail()
    done = instance.command("postdrop", "-r", input=stream, capture_output=True, text=False)
    assert done.returncode == 65 and done.stdout == b"ERR malformed input\n"
    assert b"malformed input" in done.stderr
    assert not any((instance.queue / "maildrop").iterdir())


def test_postdrop_usage(mail):
    instance = mail(start=False)
    done = instance.command("postdrop", "-k", input="", capture_output=True)
    assert done.returncode == 1 and "fatal: usage: postdrop [-c config_dir] [-v]" in done.stderr


def test_cleanup_dies(mail):
    """kill -9 of cleanup while mail comes: every message that sendmail took arrives, once or (rarely) twice."""
    instance = mail("service_throttle_time = 1s\n")  # a cleanup killed as it starts
    for i in range(30):
        assert instance.sendmail("-f", "me", ME, message=f"Subject: n{i}\n\nbody\n").returncode == 0
        if i % 5 == 0:
            for pid in instance.pids("cleanup"):
                os.kill(pid, signal.SIGKILL)
    instance.postfix("flush")
    wait_for(lambda: {m["Subject"] for m in mbox(instance)} == {f"n{i}" for i in range(30)}, seconds=90)


def test_cancelled_transaction_closes_its_id(mail):
    instance = mail()
    with instance.smtp() as smtp:
        smtp.ehlo("x")
        smtp.mail("a@elsewhere.example")
        assert smtp.rcpt(ME)[0] == 250
        smtp.rset()
    instance.wait_log("removed (canceled)")
    assert instance.queue_is_empty()


# --- modes that run another program ---

def test_bs_speaks_smtp(mail):
    instance = mail()
    dialogue = f"EHLO x\r\nMAIL FROM:<me@mail.example>\r\nRCPT TO:<{ME}>\r\nDATA\r\nSubject: bs\r\n\r\nx\r\n.\r\nQUIT\r\n"
    done = instance.sendmail("-bs", message=dialogue)
    assert done.returncode == 0 and "\n250 2.0.0 Ok: queued as " in done.stdout.replace("\r", "")
    message, = delivered(instance)
    assert message["Subject"] == "bs"


def test_listing_and_flushing(mail):
    instance = mail("defer_transports = local\n")
    assert instance.sendmail("-f", "me", ME).returncode == 0
    instance.wait_log("status=deferred")
    for command in (("sendmail", "-bp"), ("mailq",)):
        listing = instance.command(*command, capture_output=True)
        assert listing.returncode == 0 and ME in listing.stdout and "me@mail.example" in listing.stdout
    main_cf = instance.etc / "main.cf"
    main_cf.write_text(main_cf.read_text().replace("defer_transports = local", ""))
    instance.reload()
    assert instance.sendmail("-q").returncode == 0
    delivered(instance)


@pytest.mark.parametrize("how", [("sendmail", "-bi"), ("sendmail", "-I"), ("newaliases",)])
def test_newaliases(mail, how):
    instance = mail(start=False)
    aliases = instance.etc / "aliases"
    aliases.write_text("root: somebody\n")
    if os.geteuid() == 0:
        os.chown(aliases, pwd.getpwnam(USER).pw_uid, -1)
    main_cf = instance.etc / "main.cf"
    main_cf.write_text(main_cf.read_text() + f"alias_database = lmdb:{aliases}\nalias_maps = $alias_database\n")
    done = instance.command(*how, capture_output=True)
    assert done.returncode == 0, done
    found = instance.command("postalias", "-q", "root", f"lmdb:{aliases}", capture_output=True)
    assert found.stdout == "somebody\n"
