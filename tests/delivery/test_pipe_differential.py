"""pipe(8) beside Debian's: what a command finds in argv, its environment and standard input; what its end means."""
import pwd
import shutil

import pytest

from delivery_pair import Pair, PreparedOracle, connect, in_common, results, wait_answered, witness_directory, witnessed
from instance import Instance, wait_for
from oracle import Oracle

pytestmark = pytest.mark.skipif(Oracle.why_not() is not None, reason=str(Oracle.why_not()))

BODY = "Subject: x\r\n\r\nhello\r\nFrom me\r\n.dot\r\n..\r\n>From you\r\nFrom: no\r\n\r\nlast"
ONE, TWO = ["U+Ex@{}.example"], ["U+Ex@{}.Example", "v@{}.example"]
S = "S.x@There.example"

# attributes in front of argv, arguments, sender, recipients, options
ARGUMENTS = [
    ("", "$sender $recipient ${recipient} $(recipient) $$x a$$ $mailbox $extension $domain $nexthop", S, ONE),
    ("", "$original_recipient [$queue_id] $client_address $client_helo $client_hostname $client_protocol", S, ONE),
    ("", "[$sasl_method] x$sasl_sender-$sasl_username", S, ONE),
    ("", "$user $recipient", S, TWO),
    ("", "$domain", S, TWO),
    ("", "$domain ${nexthop}", S, TWO),
    ("", "$extension", S, TWO),
    ("", "$mailbox", S, TWO),
    ("", "$original_recipient", S, TWO),
    ("", "$user-$recipient-$sender", S, TWO),
    ("", "$extension $user", S, ["noext@{}.example"]),
    ("", "-f $sender -- $recipient", "", ONE),
    ("null_sender=", "-f $sender -- $recipient", "", ONE),
    ("null_sender=", "-f$sender -- $recipient", "", ONE),
    ("null_sender=a|b\\(c", "$sender", "", ONE),
    ("flags=q null_sender=a|b\\(c", "$sender", "", ONE),
    ("flags=q null_sender=", "$sender", "", ONE),
    ("null_sender=x", "$sender", S, ONE),
    ("flags=q", "$sender $recipient $user $mailbox", '"a b"@There.example', ['"x y+Z"@{}.Example']),
    ("", "$sender $recipient $user $mailbox $extension", '"a b"@There.example', ['"x y+Z"@{}.Example']),
    ("flags=q", "$original_recipient $recipient", "A..b@x.example", ["u..v@{}.EXAMPLE"]),
    ("flags=q", "$recipient", S, ['"a@b"@{}.Example']),
    ("flags=q", "$recipient", S, ['"a\\"b\\\\c"@{}.example']),
    ("flags=h", "$recipient $domain $nexthop $user $original_recipient $mailbox $extension $sender", S, ["U+EX@{}.EXAMPLE"]),
    ("flags=u", "$recipient $domain $nexthop $user $original_recipient $mailbox $extension $sender", S, ["U+EX@{}.EXAMPLE"]),
    ("flags=hqu", "$original_recipient $recipient", S, ['"U V+x"@{}.EXAMPLE']),
    ("flags=DRhu", "$recipient $user $domain $nexthop $extension", S, ONE),
    ("flags=F", "x", S, ONE),
    ("flags=F", "x", "", ONE),
    ("flags=F null_sender=", "x", "", ONE),
    ("flags=F null_sender=joe", "x", "", ONE),
    ("flags=F", "x", '"a b"@There.example', ONE),
    ("flags=R", "x", S, ONE),
    ("flags=R", "x", "", ONE),
    ("flags=R null_sender=", "x", "", ONE),
    ("flags=R null_sender=joe", "x", "", ONE),
    ("flags=R", "x", '"a b"@There.example', TWO),
    ("flags=D", "x", S, ONE),
    ("flags=D", "x", S, ['"a b"@{}.example']),
    ("flags=O", "x", S, ONE),
    ("flags=B", "x", S, ONE),
    ("flags=.", "x", S, ONE),
    ("flags=>", "x", S, ONE),
    ("flags=X", "x", S, ONE),
    ("flags=BDFORXhqu.>", "$sender $recipient", S, ONE),
    ("flags=BDFORXhqu.> eol=\\r\\n", "$sender $recipient", S, ONE),
    ("flags=BFR. eol=\\r\\n", "$sender $recipient", S, TWO),
    ("eol=\\r\\n", "x", S, ONE),
    ("eol=\\041\\n", "x", S, ONE),
    ("eol=|\\1012\\7x\\\\\\q", "x", S, ONE),
    ("eol=", "x", S, ONE),
    ("flags= directory=/tmp", "x", S, ONE),
    ("size=0", "x", S, ONE),
    ("size=100000", "x", S, ONE),
    ("", "{a b  c} { d e } {} {$sender  z} x{y {{q}} }", S, ONE),
    ("", "a,b ' \" \\ ; | * `", S, ONE),
    ("{flags=R}", "x", S, ONE),
    ("flags=FR flags=O", "x", S, ONE),
    ("flags=FF", "x", S, ONE),
    ("{null_sender=a b}", "$sender", "", ONE),
]

# The pipe services of stock master.cf files and of the guides: attributes and arguments behind the program's name.
STOCK = {
    "maildrop": ("flags=DRXhu user=vmail", "-d ${recipient}"),
    "oldmaildrop": ("flags=ODRhu user=vmail", "-w 90 -d ${user}@${nexthop} ${extension} ${recipient} ${user} ${nexthop} ${sender}"),
    "cyrus": ("user=cyrus", "-e -r ${sender} -m ${extension} ${user}"),
    "uucp": ("flags=Fqhu user=uucp", "-r -n -z -a$sender - $nexthop!rmail ($recipient)"),
    "ifmail": ("flags=F user=ftn", "-r $nexthop ($recipient)"),
    "bsmtp": ("flags=Fq. user=bsmtp", "-t$nexthop -f$sender $recipient"),
    "scalemail-backend": ("flags=R user=scalemail", "${nexthop} ${user} ${extension}"),
    "mailman": ("flags=FRX user=list", "${nexthop} ${user}"),
    "dovecot": ("flags=DRhu user=vmail:vmail", "-f ${sender} -a ${original_recipient} -d ${user}@${nexthop}"),
    "filter": ("flags=Rq user=filter null_sender=", "-f ${sender} -- ${recipient}"),
    "spamassassin": ("user=spamd", "-f -oi -f ${sender} ${recipient}"),
}
STOCK_MAIL = ["Joe+Tag@{}.Example", '"a b"@{}.example', "list-admin@{}.example"]

SH = "argv=/bin/sh -c "
ENDS = [SH + f"{{exit {n}}}" for n in [*range(0, 3), *range(64, 79), 99, 127, 250, 251, 255]] + [
    SH + "{echo out; exit 0}",
    SH + "{echo out; exit 70}",
    SH + "{echo 5.1.7 foo; exit 75}",
    SH + "{echo 4.1.7 foo; exit 70}",
    SH + "{echo 2.1.7 foo; exit 70}",
    SH + "{echo 2.1.7 foo; exit 0}",
    SH + "{echo 5.7.0 one; echo two; exit 77}",
    SH + "{kill -9 $$$$}",
    SH + "{kill -15 $$$$}",
    SH + "{echo foo; kill -9 $$$$}",
    SH + "{printf '4.3.1 a'; kill -9 $$$$}",
    SH + "{echo a; echo b; printf 'c\\td'; exit 70}",
    SH + "{printf 'a\\001\\377b  \\n\\n'; exit 70}",
    SH + "{printf '  a\\n \\303\\274  \\377\\t\\n '; exit 0}",
    SH + "{printf '4.3.2\\n'; exit 70}",
    SH + "{printf '4.3.2\\ntext'; exit 70}",
    SH + "{printf '\\n4.3.2 text'; exit 70}",
    SH + "{printf '5.1.1: a'; exit 70}",
    SH + "{printf '5.1.1\\ta'; exit 70}",
    SH + "{exec 0<&-; exec 1>&-; exec 2>&-; exit 0}",
    SH + "{head -c 1500 /dev/zero | tr '\\0' x; exit 70}",
    SH + "{head -c 100000 /dev/zero | tr '\\0' x; exit 0}",
    SH + "{echo err 1>&2; exit 70}",
    SH + "{cat >/dev/null; echo 5.7.0 done; exit 77}",
    "argv=sh -c {echo hey; exit 70}",
    "argv=/bin/echo $foo",
    "argv=/bin/echo $",
    "argv=/bin/echo ${recipient",
    "argv=/bin/echo $(recipient",
    "argv=/bin/echo $- x",
    "argv=/bin/echo ${}",
    "argv=/bin/echo ${ recipient }",
    "argv=/bin/echo ${sender:x}",
    "argv=/bin/echo $Recipient",
    "argv=/bin/echo $recipients",
    "argv=/bin/echo a$recipient.b$$$$",
    "argv=/bin/echo ${recipient}x$(sender)y",
    "size=10 argv=/bin/true",
    "flags=D argv=/bin/true",
    "user=daemon argv=/usr/bin/id",
    "user=nobody:daemon argv=/usr/bin/id",
    "eol=\\q argv=/bin/true",
]
SLOW = ["argv=/bin/sleep 100", SH + "{echo foo; sleep 100}", SH + "{(sleep 100 &) ; exit 0}"]
# How it fails is the same; what is said of it may differ.
BROKEN = ["argv=/nonexistent/cmd", "directory=/nonexistent argv=/bin/true", "chroot=/nonexistent argv=/bin/true",
          "chroot=/etc directory=/ argv=/bin/true", "argv=", "argv={/bin/echo a} b", "directory= argv=/bin/pwd",
          "argv=${recipient} x"]


def routes(names):
    return "transport_maps = inline:{ " + ", ".join(f"{{ {n}.example = {n}:NextHop.{n.upper()} }}" for n in names) + " }\n"


MAIN = "recipient_delimiter = +\nsmtpd_reject_unlisted_recipient = no\n"


def services(rows):
    return "".join(f"{name} unix - n n - - pipe user=nobody {row}\n" for name, row in rows.items())


def observe(server, cases, directory):
    """What each command saw, and what the log says."""
    for name, (_, _, sender, to) in cases.items():
        with connect(server) as c:
            c.sendmail(sender, [address.format(name) for address in to], BODY)
    seen = {}
    for name in cases:
        [one] = witnessed(directory, name)
        seen[name] = {key: one[key] for key in ("groups", "ids", "umask", "leader", "fds")}
        seen[name]["argv"] = [in_common(x, server) for x in one["argv"]]
        seen[name]["env"] = {key: in_common(value, server) for key, value in one["env"].items()}
        for key in ("stdin", "cwd"):
            seen[name][key] = in_common(one[key], server)
    wait_for(lambda: server.log().count("status=sent") == sum(len(to) for _, _, _, to in cases.values()))
    return seen, results(server.log(), address_case=False)


def test_what_commands_get():
    """argv, environment, working directory, rights, standard input, byte for byte."""
    cases = {f"a{i}": case for i, case in enumerate(ARGUMENTS)}
    main_cf = MAIN + routes(cases) + "export_environment = TZ MAIL_CONFIG FOO=bar { BAR = b c }\n"
    seen, directories = [], [witness_directory(), witness_directory()]
    try:
        for kind, directory in zip((Instance, PreparedOracle), directories):
            rows = {n: f"{a} argv={directory}/witness {directory}/{n} {v}" for n, (a, v, _, _) in cases.items()}
            with kind(main_cf=main_cf, master_extra=services(rows)) as server:
                try:
                    seen.append(observe(server, cases, directory))
                finally:
                    print(server.log())
        (mine, my_log), (other, other_log) = seen
        differ = [(cases[n], key, mine[n][key], other[n][key]) for n in cases for key in mine[n] if mine[n][key] != other[n][key]]
        assert not differ, "\n".join(map(repr, differ))
        assert my_log == other_log
    finally:
        for directory in directories:
            shutil.rmtree(directory)


def known(attributes):
    """With users of this machine in the place of those it does not have."""
    words = []
    for word in attributes.split():
        if word.startswith("user="):
            try:
                pwd.getpwnam(word[5:].split(":")[0])
            except KeyError:
                word = "user=nobody"
        words.append(word)
    return " ".join(words)


def test_stock_services():
    """What each of them would give its program."""
    cases = {name: (attributes, arguments, S, STOCK_MAIL) for name, (attributes, arguments) in STOCK.items()}
    one_at_a_time = "".join(f"{name}_destination_recipient_limit = 1\n" for name in cases)
    seen, directories = [], [witness_directory(), witness_directory()]
    try:
        for kind, directory in zip((Instance, PreparedOracle), directories):
            rows = "".join(f"{n} unix - n n - - pipe\n  {known(a)}\n  argv={directory}/witness {directory}/{n} {v}\n"
                           for n, (a, v, _, _) in cases.items())
            with kind(main_cf=MAIN + routes(cases) + one_at_a_time, master_extra=rows) as server:
                try:
                    for name in cases:
                        for sender in (S, ""):
                            with connect(server) as c:
                                c.sendmail(sender, [to.format(name) for to in STOCK_MAIL], BODY)
                    found = {}
                    for name in cases:
                        wait_for(lambda name=name: server.log().count(f"relay={name}, ") == 2 * len(STOCK_MAIL), 60)
                        runs = witnessed(directory, name)
                        found[name] = sorted((run["argv"], run["ids"], in_common(run["stdin"], server)) for run in runs)
                    seen.append(found)
                finally:
                    print(server.log())
        for name in cases:
            assert seen[0][name] == seen[1][name], STOCK[name]
            assert len(seen[0][name]) == 2 * len(STOCK_MAIL)
    finally:
        for directory in directories:
            shutil.rmtree(directory)


def ends(rows, main_cf=""):
    cases = {f"e{i}": row for i, row in enumerate(rows)}
    with Pair(MAIN + routes(cases) + "command_time_limit = 2s\n" + main_cf, services(cases)) as servers:
        found = []
        for server in servers:
            for name in cases:
                with connect(server) as c:
                    c.sendmail("", [f"u@{name}.example"], f"Subject: x\r\nDelivered-To: <u@{name}.example>\r\n"
                               f"Delivered-To: U@{name}.example\r\n\r\nhello\r\n")
        for server in servers:
            wait_answered(server, [f"u@{name}.example" for name in cases])
            found.append(results(server.log()))
        return [(row, found[0][f"u@{name}.example"], found[1][f"u@{name}.example"]) for name, row in cases.items()]


def test_what_its_end_means():
    differ = [case for case in ends(ENDS) if case[1] != case[2]]
    assert not differ, "\n".join(map(repr, differ))


def test_time_limit():
    for row, mine, other in ends(SLOW):
        assert mine == other, row


def test_what_cannot_be_run():
    for row, mine, other in ends(BROKEN):
        assert {line[:5] for line in mine} == {line[:5] for line in other}, row
        assert all(line[5].startswith("temporary failure") for line in mine), row


