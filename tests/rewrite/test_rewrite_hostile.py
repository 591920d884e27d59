"""What no table and no header may do to cleanup: take its memory, or keep it from ending."""
import contextlib
import pathlib
import smtplib

import pytest

from instance import SANITIZED, Instance, wait_for

MEMBERS = 100_000
MIB = 1 << 20


def peak(instance, program):
    """The most memory its processes have had, in bytes."""
    found = 0
    for pid in instance.pids(program):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            status = pathlib.Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
            found = max([found] + [int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")])
    return found


@pytest.fixture(scope="module")
def mail(tmp_path_factory):
    table = tmp_path_factory.mktemp("tables") / "virtual"
    table.parent.chmod(0o755)
    members = ",".join(f"member{i}@away.example" for i in range(MEMBERS))
    loops = "".join(f"loop{i}@here.example loop{(i + 1) % 50}@here.example\n" for i in range(50))
    grow = "grow@here.example grow@here.example, x@here.example\nx@here.example y@here.example, x@here.example\n" \
           "y@here.example x@here.example, y@here.example\nbush@here.example bush1@here.example, bush1@here.example\n" + \
           "".join(f"bush{i}@here.example bush{i + 1}@here.example, bush{i + 1}@here.example\n" for i in range(1, 40))
    table.write_text(f"all@here.example {members}\n{loops}{grow}")
    table.chmod(0o644)
    instance = Instance(name="hostile", main_cf=f"""\
virtual_alias_domains = here.example
virtual_alias_maps = texthash:{table}
virtual_alias_expansion_limit = {MEMBERS + 10}
header_checks = static:HOLD
canonical_maps = inline:{{ {{l1@here.example=l2@here.example}} {{l2@here.example=l1@here.example}} }}
smtpd_reject_unlisted_recipient = no
message_size_limit = 0
queue_minfree = 0
""")
    with instance:
        yield instance


def send(instance, rcpt, message="Subject: x\r\n\r\nbody\r\n", sender="s@away.example"):
    with instance.smtp() as smtp:
        smtp.ehlo("client.example")
        smtp.mail(sender)
        smtp.rcpt(rcpt)
        code, text = smtp.data(message)
        return code, text.decode()


def test_an_alias_of_100000_members(mail):
    code, text = send(mail, "all@here.example")
    assert code == 250, text
    queue_id = text.split()[-1]
    out = mail.command("postcat", "-e", "-q", queue_id, capture_output=True).stdout
    found = {line.partition(": ")[2] for line in out.splitlines() if line.startswith("recipient: ")}
    assert len(found) == MEMBERS and "member99999@away.example" in found
    assert SANITIZED or peak(mail, "cleanup") < 400 * MIB
    mail.command("postsuper", "-d", queue_id)


@pytest.mark.parametrize("name", ["loop0", "bush"])
def test_aliases_without_end(mail, name):
    code, text = send(mail, f"{name}@here.example")
    assert code == 451 and text.startswith("4.6.0 "), text
    assert SANITIZED or peak(mail, "cleanup") < 400 * MIB


def test_aliases_of_each_other(mail):
    assert send(mail, "grow@here.example")[0] == 250


def test_a_canonical_loop(mail):
    assert send(mail, "a@away.example", sender="l1@here.example")[0] == 250
    mail.wait_log("unreasonable canonical_maps map nesting for l1@here.example")


@pytest.mark.parametrize("size, field", [(20, "X-Long: " + "x" * 70 + "\r\n"), (20, "To: a@away.example\r\n"),
                                         (100, "\tmore@away.example,\r\n"),
                                         (20, "To: (((((((((((((((((((\"\\<<<<,,,,;;;;::::@@@@\r\n")])
def test_a_header_of_100_megabytes(mail, size, field):
    """Fields, and one field whose lines never end: the memory that is used does not follow."""
    before = peak(mail, "cleanup")
    piece = field.encode() * (MIB // len(field))
    with smtplib.SMTP("127.0.0.1", mail.port, timeout=300) as smtp:
        smtp.ehlo("client.example")
        smtp.mail("s@away.example")
        smtp.rcpt("a@away.example")
        assert smtp.docmd("DATA")[0] == 354
        smtp.send(b"To: first@away.example,\r\n")
        for _ in range(size * MIB // len(piece)):
            smtp.send(piece)
        smtp.send(b"\r\nbody\r\n.\r\n")
        code, text = smtp.getreply()
    assert code == 250, text
    assert SANITIZED or peak(mail, "cleanup") < max(before, 64 * MIB) + 64 * MIB
    mail.command("postsuper", "-d", text.decode().split()[-1])
    wait_for(lambda: mail.smtp().ehlo()[0] == 250)
