"""What the scenarios of Postfix's guides play in: one Angarium with a guide's settings, name servers that know what a
scenario says of them (every other name is 127.0.0.3), and one SMTP server behind each name, which keeps all it is sent."""
import dataclasses
import os
import pathlib
import pwd
import re

from aiosmtpd.controller import Controller

from instance import Instance, free_port, wait_for
from name_server import Names

ME = pwd.getpwuid(os.geteuid()).pw_name
LAN, STRANGER = "10.0.0.7", "192.0.2.9"


class WideNames(Names):
    """Names of machines have an address without being listed; other records only when they are."""

    class Zone(dict):
        def __contains__(self, key):
            return dict.__contains__(self, key) or (key[1] == "A" and not key[0].endswith(".arpa"))

        def __missing__(self, key):
            return 60, ["127.0.0.3"]

    def __init__(self, zone):
        super().__init__(self.Zone(zone))


class Far:
    """The SMTP server of everybody else. `mail`: (sender, [recipients], content)."""

    def __init__(self, address="127.0.0.3", port=None):
        self.mail = []
        self.port = port or free_port()
        self.controller = Controller(self, hostname=address, port=self.port)
        self.controller.start()

    async def handle_DATA(self, server, session, envelope):
        self.mail.append((envelope.mail_from, envelope.rcpt_tos, envelope.content.decode().replace("\r\n", "\n")))
        return "250 2.0.0 kept"

    def close(self):
        self.controller.stop()


@dataclasses.dataclass
class Mail:
    """One message. `want`: a reply code and more, when the recipient is refused; otherwise a pattern in a log line of the
    recipient. `by`: sendmail, or the address of an SMTP client. `came`: what must stand in what the far side has got."""
    to: str
    want: str
    sender: str = "somebody@there.example"
    by: str = STRANGER
    header: str = ""
    came: tuple = ()


@dataclasses.dataclass
class Scenario:
    guide: str
    section: str
    main_cf: str
    mails: list
    files: dict = dataclasses.field(default_factory=dict)
    zone: dict = dataclasses.field(default_factory=dict)
    master_cf: str = ""
    stored: dict = dataclasses.field(default_factory=dict)  # file below the top directory: patterns in it


class World:
    def __init__(self, scenario):
        self.scenario = scenario
        self.far = Far()
        self.names = WideNames(scenario.zone)
        self.mail = Instance(name="hostname", dns=self.names.address)

    def fill(self, text):
        top = self.mail.directory
        return (text.replace("{me}", ME).replace("{etc}", str(self.mail.etc)).replace("{top}", str(top))
                .replace("{uid}", str(os.geteuid() or 65534)).replace("{gid}", str(os.getegid() or 65534)))

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def start(self):
        s, i = self.scenario, self.mail
        i.extra = self.fill(f"mydomain = home.example\nmyhostname = hostname.home.example\nsmtp_tcp_port = {self.far.port}\n"
                            "smtpd_authorized_xclient_hosts = 127.0.0.1\nnotify_classes =\nbiff = no\n" + s.main_cf)
        i.master_extra = self.fill(s.master_cf)
        i.write_config()
        if "mynetworks_style" in s.main_cf:  # which counts only when nothing else says what mynetworks is
            main_cf = i.etc / "main.cf"
            main_cf.write_text(re.sub(r"^mynetworks = .*\n", "", main_cf.read_text(), flags=re.M))
        box = i.directory / "boxes"
        box.mkdir()
        box.chmod(0o777)
        for name, text in s.files.items():
            path = i.directory / name if "/" in name else i.etc / name
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(self.fill(text))
            path.chmod(0o755 if text.startswith("#!") else 0o644)
            if f"hash:{{etc}}/{name}" in s.main_cf:
                command = "postalias" if name == "aliases" else "postmap"
                done = i.command(command, f"hash:{path}", capture_output=True)
                assert done.returncode == 0, done.stderr
        i.start()
        return self

    def __exit__(self, *_):
        print(f"--- log of {self.scenario.section}:\n{self.mail.log()}")
        self.mail.stop()
        self.far.close()
        self.names.close()

    # --- what happens ---
    def give(self, mail):
        """The reply to what was refused, or None."""
        content = self.fill(mail.header) + "Subject: from a guide\n\nhello\n"
        to, sender = self.fill(mail.to), self.fill(mail.sender)
        if mail.by == "sendmail":
            done = self.mail.sendmail("-f", sender, "--", to, message=content)
            assert done.returncode == 0, done.stderr
            return None
        with self.mail.smtp() as smtp:
            smtp.ehlo("client.there.example")
            if mail.by != "127.0.0.1":
                assert smtp.docmd(f"XCLIENT ADDR={mail.by} NAME=client.there.example")[0] == 220
                smtp.ehlo("client.there.example")
            replies = [smtp.docmd(f"MAIL FROM:<{sender.strip('<>')}>"), smtp.docmd(f"RCPT TO:<{to}>")]
            if replies[-1][0] == 250:
                replies.append(smtp.data(content.replace("\n", "\r\n").encode()))
            code, text = replies[-1]
            return None if code == 250 else f"{code} {text.decode()}"

    def came(self, mail):
        return any(all(re.search(self.fill(p), f"From <{sender}> to {rcpts}\n{text}", re.M) for p in mail.came)
                   for sender, rcpts, text in self.far.mail)

    def play(self):
        for mail in self.scenario.mails:
            refused = self.give(mail)
            want = self.fill(mail.want)
            if want[:1].isdigit():
                assert refused and re.search(want, refused), (mail, refused)
                continue
            assert refused is None, (mail, refused)
            wait_for(lambda: any(re.search(want, line) for line in self.mail.log().splitlines() if "to=<" in line),
                     30, f"a line of the log with {want}")
            if mail.came:
                wait_for(lambda: self.came(mail), 30, f"{mail.came} among {self.far.mail}")
        for name, patterns in self.scenario.stored.items():
            path = pathlib.Path(self.fill(str(self.mail.directory / name)))
            for pattern in patterns:
                wait_for(lambda: any(re.search(self.fill(pattern), p.read_text(), re.M) for p in files(path)), 30,
                         f"{pattern} in {path}")


def files(path):
    """The file, or those of a Maildir."""
    if path.is_dir():
        return list(path.glob("new/*"))
    return [path] if path.exists() else []
