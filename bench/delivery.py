"""Mail delivered on this host: Angarium beside Debian's Postfix, in one run, with one load tool, all durable.

usage: delivery.py [--build DIR] [--only NAME,...] [--quick] [--sessions N,...] [--seconds S] [--pairs N] [--write FILE]

  maildir  4 KiB into virtual Maildirs of 100 users; 10, 50 and 100 sessions
  mbox     the same into mbox files of 100 users
  local    4 KiB to 100 names: a third each an alias of a file, a ~/.forward, mailbox_command
  list     one message to an alias of 100,000 members, who are rewritten and discarded; most memory of all processes
  checks   100 KiB through header_checks and body_checks of 200 pcre rules each, discarded
  pipe     4 KiB to pipe(8) with a trivial command

Runs alternate A B A B, as in relay.py. A run lasts from the first connection of the load tool until the log has a
`status=sent` for every message; the CPU time counts until the server is idle again. --quick: one pair of short runs. Needs root.
"""
import contextlib
import os
import pathlib
import pwd
import shutil
import tempfile
import time

from measure import Load, pss_kib
from relay import SIZE, median, shown
from report import run_scenarios
from servers import Angarium, Postfix, unpacked

UID = 10099
DOMAIN = "v.example"
USERS = 100
MEMBERS = 100000
CHECKED = 100 * 1024
RULES = 200
UNSENT = ("fatal: ", "status=deferred", "status=bounced", "status=SOFTBOUNCE")


class Deliveries:
    """Counts `status=sent` lines of a log that grows, without reading a line twice."""

    def __init__(self, path):
        self.path, self.at, self.sent, self.rest = path, 0, 0, b""

    def look(self):
        if not self.path.exists():
            return self.sent
        with open(self.path, "rb") as f:
            f.seek(self.at)
            text = self.rest + f.read()
            self.at = f.tell()
        lines, end, self.rest = text.rpartition(b"\n")
        lines += end
        self.sent += lines.count(b"status=sent")
        for word in UNSENT:
            if word.encode() in lines:
                line = next(line for line in lines.split(b"\n") if word.encode() in line)
                raise RuntimeError(f"not delivered: {line.decode(errors='replace')}")
        return self.sent

    def wait(self, count, seconds=600):
        end = time.monotonic() + seconds
        while self.look() < count:
            if time.monotonic() > end:
                raise RuntimeError(f"{self.sent} of {count} messages delivered")
            time.sleep(0.005)


class Bench:
    def __init__(self, args, report):
        self.args, self.say = args, report.say
        self.load = Load(args.build)
        self.postfix_root, _ = unpacked(args.build)

    @contextlib.contextmanager
    def folder(self):
        """On the file system of the queues."""
        path = pathlib.Path(tempfile.mkdtemp(prefix="delivery-"))
        try:
            path.chmod(0o755)
            yield path
        finally:
            shutil.rmtree(path)

    def run(self, server, log, messages, sessions, size, count=False):
        deliveries = Deliveries(log)
        before = deliveries.look()
        usage = server.usage().start(count)
        got = self.load(server.port, s=sessions, m=messages, l=size, t=DOMAIN, a=USERS)
        deliveries.wait(before + messages)
        end = time.monotonic()
        server.wait_until_idle()
        used = usage.stop()
        seconds = end - got["start"]
        return {"rate": messages / seconds, "cpu": used["cpu"] / messages * 1000,
                **{key: None if used[key] is None else used[key] / messages for key in ("switches", "syncs", "calls", "flushes")}}

    def pairs(self, servers, run):
        first = [run(server, 100 if self.args.quick else 500, True) for server in servers]
        counts = [max(50, int(result["rate"] * self.args.seconds)) for result in first]
        results = [], []
        for _ in range(self.args.pairs):
            for result, server, messages, counted in zip(results, servers, counts, first):
                one = run(server, messages, False)
                result.append({**one, **{key: counted[key] for key in ("switches", "syncs", "calls")}})
        return results

    @contextlib.contextmanager
    def both(self, settings, master, prepare):
        """Both servers, and the log file of each. `settings` and `master` of a folder: additions to main.cf and master.cf."""
        with contextlib.ExitStack() as stack:
            servers, logs = [], {}
            for make in (lambda cf: Angarium(self.args.build, 9, main_cf=cf), lambda cf: Postfix(self.postfix_root, 9, main_cf=cf)):
                top = stack.enter_context(self.folder())
                prepare(top)
                server = make("relayhost =\nsmtpd_reject_unlisted_recipient = no\n" + settings(top))
                with open(server.etc / "master.cf", "a") as f:
                    f.write(master(top))
                servers.append(stack.enter_context(server))
                logs[server] = pathlib.Path(server.server.directory) / "log"
            yield servers, logs

    def compare(self, title, wanted, settings, sessions, master=lambda top: "", prepare=lambda top: None, size=SIZE):
        say = self.say
        say(f"### {title}")
        say()
        say("| sessions | server | messages/s | CPU s per 1,000 | context switches | system calls | sync calls | disk flushes |")
        say("|---|---|---|---|---|---|---|---|")
        ratios = []
        with self.both(settings, master, prepare) as (servers, logs):
            for n in sessions:
                both = self.pairs(servers, lambda server, messages, count, n=n: self.run(
                    server, logs[server], messages, n, size, count))
                for server, results in zip(servers, both):
                    m = {key: median([r[key] for r in results]) for key in results[0]}
                    say(f"| {n} | {server.name} | {m['rate']:.0f} | {m['cpu']:.3f} | {shown(m['switches'], 1)} | "
                        f"{shown(m['calls'], 0)} | {shown(m['syncs'], 2)} | {shown(m['flushes'], 2)} |")
                rate = median([a["rate"] / b["rate"] for a, b in zip(*both)])
                cpu = median([b["cpu"] / a["cpu"] for a, b in zip(*both)])
                ratios.append(f"{n} sessions: rate {rate:.1f}, CPU 1/{cpu:.1f}")
        say()
        say(f"Ratios, medians of pairs: {'; '.join(ratios)}. Wanted: {wanted}.")
        say()

    @staticmethod
    def virtual(kind):
        def settings(top):
            return (f"virtual_mailbox_domains = {DOMAIN}\nvirtual_mailbox_base = {top}/mail\nvirtual_mailbox_limit = 0\n"
                    f"virtual_mailbox_maps = regexp:{top}/map\nvirtual_uid_maps = static:{UID}\nvirtual_gid_maps = static:{UID}\n"
                    "virtual_destination_concurrency_limit = 50\n")

        def prepare(top):
            (top / "mail").mkdir()
            os.chown(top / "mail", UID, UID)
            # a line for each user, for tables whose answers may have no $1 (virtual(8))
            (top / "map").write_text("".join(f"/^user{n}@/ user{n}{kind}\n" for n in range(USERS)))
        return settings, prepare

    def scenario_maildir(self):
        settings, prepare = self.virtual("/")
        self.compare("Virtual Maildirs, 4 KiB", "rate 4, CPU 1/6", settings, self.args.sessions, prepare=prepare)

    def scenario_mbox(self):
        settings, prepare = self.virtual("")
        self.compare("mbox files of 100 users, 4 KiB", "rate 4", settings, [50], prepare=prepare)

    def scenario_local(self):
        nobody = pwd.getpwnam("nobody")

        def prepare(top):
            for name in ("home", "spool"):
                (top / name).mkdir()
            (top / "spool").chmod(0o1777)
            (top / "forward.nobody").write_text(f"{top}/home/box\n")
            for path in (top / "home", top / "forward.nobody"):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
            # a third each: a user with mailbox_command, one with a ~/.forward, a file; as a table both can read
            rows = ("daemon", "nobody", f"{top}/home/file")
            (top / "aliases").write_text("".join(f"/^user{n}$/ {rows[n % 3]}\n" for n in range(USERS)))
            (top / "home/file").touch()
            os.chown(top / "home/file", nobody.pw_uid, nobody.pw_gid)

        def settings(top):
            return (f"mailbox_size_limit = 0\nalias_maps = regexp:{top}/aliases\nmail_spool_directory = {top}/spool\n"
                    f"forward_path = {top}/forward.$user\nmailbox_command = /bin/true\ndefault_privs = nobody\n"
                    "local_destination_concurrency_limit = 20\nmydestination = $myhostname, localhost, v.example\n"
                    "allow_mail_to_files = alias, forward\n")

        self.compare("local: aliases, ~/.forward, mailbox_command, 4 KiB", "rate 3", settings, [50],
                     prepare=prepare)

    def scenario_pipe(self):
        self.compare("pipe(8) with /bin/true, 4 KiB", "rate 2",
                     lambda top: f"transport_maps = inline:{{{DOMAIN}=trivial:}}\ntrivial_destination_concurrency_limit = 20\n"
                     "trivial_destination_recipient_limit = 1\n", [50],
                     master=lambda top: "trivial unix - n n - - pipe user=nobody argv=/bin/true $recipient\n")


    def scenario_list(self):
        def prepare(top):
            (top / "members").write_text("".join(f"Member{n}@far\n" for n in range(MEMBERS)))
            (top / "aliases").write_text(f"/^user0$/ :include:{top}/members\n")

        def settings(top):
            return (f"mailbox_size_limit = 0\nalias_maps = regexp:{top}/aliases\nmydestination = $myhostname, localhost, {DOMAIN}\nmydomain = example\n"
                    "append_dot_mydomain = yes\ntransport_maps = inline:{far.example=discard:}\n")

        self.say(f"### One message to an alias of {MEMBERS} members")
        self.say()
        self.say("| server | members/s | CPU s | most memory of all processes (PSS), MiB |")
        self.say("|---|---|---|---|")
        rates = []
        with self.both(settings, lambda top: "", prepare) as (servers, logs):
            for server in servers:
                deliveries = Deliveries(logs[server])
                usage, most, begin = server.usage().start(), 0, time.monotonic()
                self.load(server.port, s=1, m=1, l=SIZE, t=DOMAIN, a=1)
                while deliveries.look() < MEMBERS + 1:  # and the alias itself
                    most = max(most, pss_kib(server.pids()))
                    if time.monotonic() > begin + 300:
                        raise RuntimeError(f"{server.name}: {deliveries.sent} members in 300 s")
                    time.sleep(0.05)
                rates.append(MEMBERS / (time.monotonic() - begin))
                server.wait_until_idle()
                self.say(f"| {server.name} | {rates[-1]:.0f} | {usage.stop()['cpu']:.2f} | {most / 1024:.1f} |")
        self.say()
        self.say(f"Ratio: {rates[0] / rates[1]:.1f}; wanted 5, and memory that does not grow with the list.")
        self.say()

    def scenario_checks(self):
        def prepare(top):
            (top / "dynamicmaps.cf").write_text(f"pcre {self.postfix_root}/usr/lib/postfix/postfix-pcre.so dict_pcre_open\n")
            for part in ("header", "body"):
                (top / part).write_text("".join(f"/^{part}-{n}:\\s*(bad|worse) +[a-z]+\\d{{3}}$/ REJECT rule {n}\n" for n in range(RULES)))

        self.compare("header_checks and body_checks of 200 pcre rules each, 100 KiB", "rate 3",
                     lambda top: f"meta_directory = {top}\nheader_checks = pcre:{top}/header\nbody_checks = pcre:{top}/body\n"
                     f"transport_maps = inline:{{{DOMAIN}=discard:}}\n", [50], prepare=prepare, size=CHECKED)


SCENARIOS = ["maildir", "mbox", "local", "list", "checks", "pipe"]


def add_options(parser):
    parser.set_defaults(seconds=2.5)
    parser.add_argument("--sessions", type=lambda text: [int(n) for n in text.split(",")], default=[10, 50, 100])


if __name__ == "__main__":
    run_scenarios("Mail delivered on this host (bench/delivery.py)", __doc__, SCENARIOS, Bench, add_options)
