"""VIRTUAL_README, MAILDROP_README and UUCP_README: domains beside the machine's own, and what delivers for them."""
from guide_world import Mail, Scenario

BOX = "status=sent \\(delivered to mailbox\\)"
SCRIPT = '#!/bin/sh\n{ printf "%s\\n" "$*"; cat; } > {top}/boxes/NAME\n'
MAILDROP = {"maildrop": SCRIPT.replace("NAME", "${2:-none}")}
UUX = {"uux": SCRIPT.replace("NAME", "uux")}
UUCP = "uucp unix - n n - - pipe\n  flags=F user=nobody argv={etc}/uux -r -n -z -a$sender - $nexthop!rmail ($recipient)\n"

SCENARIOS = {
    "shared domains": Scenario("VIRTUAL", "shared domains, system accounts", (
        "mydestination = $myhostname localhost.$mydomain office.example\n"), [
            Mail("{me}@office.example", f"to=<{{me}}@office.example>, .*{BOX}"),
            Mail("{me}@hostname.home.example", f"to=<{{me}}@hostname.home.example>, .*{BOX}")]),
    "alias domain": Scenario("VIRTUAL", "alias domain, system accounts", (
        "virtual_alias_domains = office.example\nvirtual_alias_maps = hash:{etc}/virtual\n"
        "alias_maps = inline:{ {postmaster={me}} }\n"), [
            Mail("postmaster@office.example", f"to=<{{me}}@hostname.home.example>, orig_to=<postmaster@office.example>, .*{BOX}"),
            Mail("info@office.example", f"to=<{{me}}@hostname.home.example>, orig_to=<info@office.example>, .*{BOX}"),
            Mail("sales@office.example", f"to=<nobody@hostname.home.example>, orig_to=<sales@office.example>, .*{BOX}"),
            Mail("other@office.example", "550 5.1.1 .*User unknown in virtual alias table")],
        files={"virtual": "postmaster@office.example postmaster\ninfo@office.example {me}\nsales@office.example nobody\n"}),
    "alias domain, catch-all": Scenario("VIRTUAL", "alias domain, catch-all", (
        "virtual_alias_domains = office.example\nvirtual_alias_maps = hash:{etc}/virtual\n"), [
            Mail("info@office.example", f"to=<nobody@hostname.home.example>, orig_to=<info@office.example>, .*{BOX}"),
            Mail("other@office.example", f"to=<{{me}}@hostname.home.example>, orig_to=<other@office.example>, .*{BOX}")],
        files={"virtual": "info@office.example nobody\n@office.example {me}\n"}),
    "mailbox domain": Scenario("VIRTUAL", "mailbox domain", (
        "virtual_mailbox_domains = office.example\nvirtual_mailbox_base = {top}/boxes\n"
        "virtual_mailbox_maps = hash:{etc}/vmailbox\nvirtual_minimum_uid = 1\nvirtual_uid_maps = static:{uid}\n"
        "virtual_gid_maps = static:{gid}\nvirtual_alias_maps = hash:{etc}/virtual\nalias_maps = inline:{ {postmaster={me}} }\n"), [
            Mail("info@office.example", "to=<info@office.example>, relay=virtual, .*delivered to mailbox"),
            Mail("sales@office.example", "to=<sales@office.example>, relay=virtual, .*delivered to maildir"),
            Mail("postmaster@office.example", f"to=<{{me}}@hostname.home.example>, .*{BOX}"),
            Mail("other@office.example", "550 5.1.1 .*User unknown in virtual mailbox table")],
        files={"vmailbox": "info@office.example info\nsales@office.example sales/\n",
               "virtual": "postmaster@office.example postmaster\n"},
        stored={"boxes/info": ["^From somebody@there.example ", "^Delivered-To: info@office.example"],
                "boxes/sales": ["^Delivered-To: sales@office.example"]}),
    "mailbox domain, catch-all": Scenario("VIRTUAL", "mailbox domain, catch-all", (
        "virtual_mailbox_domains = office.example\nvirtual_mailbox_base = {top}/boxes\nvirtual_minimum_uid = 1\n"
        "virtual_mailbox_maps = hash:{etc}/vmailbox\nvirtual_uid_maps = static:{uid}\nvirtual_gid_maps = static:{gid}\n"), [
            Mail("any@office.example", "to=<any@office.example>, relay=virtual, .*delivered to mailbox"),
            Mail("info@office.example", "to=<info@office.example>, relay=virtual, .*delivered to mailbox")],
        files={"vmailbox": "info@office.example info\n@office.example catchall\n"},
        stored={"boxes/catchall": ["^Delivered-To: any@office.example"], "boxes/info": ["^Delivered-To: info@office.example"]}),
    "somebody else's mailboxes": Scenario("VIRTUAL", "non-Postfix mailbox store", (
        "virtual_transport = maildrop:\nvirtual_mailbox_domains = office.example\nvirtual_mailbox_maps = hash:{etc}/vmailbox\n"
        "virtual_alias_maps = hash:{etc}/virtual\nalias_maps = inline:{ {postmaster={me}} }\n"), [
            Mail("info@office.example", "to=<info@office.example>, relay=maildrop, .*delivered via maildrop service"),
            Mail("postmaster@office.example", f"to=<{{me}}@hostname.home.example>, .*{BOX}"),
            Mail("other@office.example", "550 5.1.1 .*User unknown in virtual mailbox table")],
        files={"vmailbox": "info@office.example whatever\n", "virtual": "postmaster@office.example postmaster\n", **MAILDROP},
        master_cf="maildrop unix - n n - - pipe\n  flags=DRXhu user=nobody argv={etc}/maildrop -d ${recipient}\n",
        stored={"boxes/info@office.example": ["^-d info@office.example$", "^Delivered-To: info@office.example"]}),
    "forwarding domain": Scenario("VIRTUAL", "mail forwarding domain", (
        "virtual_alias_domains = office.example\nvirtual_alias_maps = hash:{etc}/virtual\n"), [
            Mail("joe@office.example", "to=<joe@somewhere.example>, orig_to=<joe@office.example>, relay=somewhere.example",
                 came=("to \\['joe@somewhere.example'\\]",)),
            Mail("jane@office.example", "to=<jane@somewhere-else.example>, orig_to=<jane@office.example>, relay=somewhere-else"),
            Mail("jim@office.example", "550 5.1.1 .*User unknown in virtual alias table")],
        files={"virtual": "joe@office.example joe@somewhere.example\njane@office.example jane@somewhere-else.example\n"}),
    "mailing lists": Scenario("VIRTUAL", "mailing lists", (
        "virtual_alias_domains = office.example\nvirtual_alias_maps = hash:{etc}/virtual\nalias_maps = hash:{etc}/aliases\n"), [
            Mail("news@office.example", "to=<news@hostname.home.example>, orig_to=<news@office.example>, .*delivered to command"),
            Mail("owner-news@office.example", f"to=<{{me}}@hostname.home.example>, orig_to=<owner-news@office.example>, .*{BOX}"),
            Mail("news-request@office.example", f"to=<nobody@hostname.home.example>, orig_to=<news-request@office.example>, .*{BOX}")],
        files={"virtual": "news-request@office.example news-request\nnews@office.example news\n"
                          "owner-news@office.example owner-news\n",
               "aliases": 'news: "|{etc}/wrapper news"\nowner-news: {me}\nnews-request: nobody\n',
               "wrapper": SCRIPT.replace("NAME", "wrapper")},
        stored={"boxes/wrapper": ["^news$", "^From owner-news@hostname.home.example ", "^Subject: from a guide"]}),
    "autoreplies": Scenario("VIRTUAL", "autoreplies", (
        "virtual_alias_domains = office.example\nvirtual_alias_maps = hash:{etc}/virtual\ntransport_maps = hash:{etc}/transport\n"
        "mydestination = $myhostname, localhost, keep.example\nlocal_recipient_maps =\nmailbox_transport = discard:kept\n"), [
            Mail("user@keep.example", "to=<user@keep.example>, .*status=sent \\(kept\\)"),
            Mail("user2@keep.example", "to=<\"user2@keep.example\"@autoreply.home.example>, orig_to=<user2@keep.example>, relay=autoreply")],
        files={"virtual": "user@keep.example user@keep.example, user@keep.example@autoreply.home.example\n"
                          "user2@keep.example user2@keep.example, user2@keep.example@autoreply.home.example\n",
               "transport": "autoreply.home.example autoreply:\n", "autoreply": SCRIPT.replace("NAME", "$2")},
        master_cf="autoreply unix - n n - - pipe\n  flags= user=nobody argv={etc}/autoreply $sender $mailbox\n",
        stored={"boxes/user@keep.example": ["^somebody@there.example user@keep.example$"]}),

    "maildrop with extensions": Scenario("MAILDROP", "direct, with address extensions", (
        "maildrop_destination_recipient_limit = 1\nvirtual_mailbox_domains = some.example other.example\n"
        "virtual_transport = maildrop\nvirtual_mailbox_maps = hash:{etc}/virtual_mailbox\nrecipient_delimiter = +\n"
        "virtual_alias_maps = hash:{etc}/virtual_alias\nalias_maps = inline:{ {postmaster={me}} }\n"), [
            Mail("user1+tag@some.example", "to=<user1\\+tag@some.example>, relay=maildrop, .*status=sent"),
            Mail("user3@other.example", "to=<user3@other.example>, relay=maildrop, .*status=sent"),
            Mail("user3@some.example", "550 5.1.1"),
            Mail("postmaster@other.example", f"to=<{{me}}@hostname.home.example>, .*{BOX}")],
        files={"virtual_mailbox": "user1@some.example x\nuser3@other.example x\n",
               "virtual_alias": "postmaster@some.example postmaster\npostmaster@other.example postmaster\n", **MAILDROP},
        master_cf="maildrop unix - n n - - pipe\n  flags=ODRhu user=nobody argv={etc}/maildrop\n"
                  "  -d ${user}@${domain} ${extension} ${recipient} ${user} ${nexthop}\n",
        stored={"boxes/user1@some.example": ["^-d user1@some.example tag user1\\+tag@some.example user1 some.example$"],
                "boxes/user3@other.example": ["^-d user3@other.example  ?user3@other.example user3 other.example$"]}),
    "maildrop for all accounts": Scenario("MAILDROP", "indirect, all accounts", "mailbox_command = {etc}/maildrop -d ${USER}\n", [
        Mail("{me}@hostname.home.example", "to=<{me}@hostname.home.example>, relay=local, .*delivered to command"),
        Mail("nobody@hostname.home.example", "to=<nobody@hostname.home.example>, relay=local, .*delivered to command")],
        files=MAILDROP, stored={"boxes/{me}": ["^-d {me}$"], "boxes/nobody": ["^-d nobody$", "^Delivered-To: nobody@"]}),
    "maildrop for one": Scenario("MAILDROP", "indirect, specific users", "mailbox_command_maps = hash:{etc}/mailbox_commands\n", [
        Mail("nobody@hostname.home.example", "to=<nobody@hostname.home.example>, .*delivered to command"),
        Mail("{me}@hostname.home.example", f"to=<{{me}}@hostname.home.example>, .*{BOX}")],
        files={"mailbox_commands": "nobody {etc}/maildrop -d ${USER}\n", **MAILDROP}, stored={"boxes/nobody": ["^-d nobody$"]}),
    "maildrop from a forward file": Scenario("MAILDROP", "indirect, from a forward file", "forward_path = {top}/forward/$user.forward\n", [
        Mail("nobody@hostname.home.example", "to=<nobody@hostname.home.example>, .*delivered to command: {etc}/maildrop")],
        files={"forward/nobody.forward": '"|{etc}/maildrop -d ${USER}"\n', **MAILDROP}, stored={"boxes/nobody": ["^-d nobody$"]}),

    "LAN to UUCP": Scenario("UUCP", "LAN to UUCP gateway", "relayhost = uucp-gateway\ndefault_transport = uucp\n", [
        Mail("a@there.example", "to=<a@there.example>, relay=uucp, .*status=sent", by="127.0.0.1"),
        Mail("{me}@hostname.home.example", f"to=<{{me}}@hostname.home.example>, .*{BOX}")],
        master_cf=UUCP, files=UUX,
        stored={"boxes/uux": ["^-r -n -z -asomebody@there.example - uucp-gateway!rmail \\(a@there.example\\)$"]}),
    "LAN to UUCP in one line": Scenario("UUCP", "LAN to UUCP gateway, succinct", "default_transport = uucp:uucp-gateway\n", [
        Mail("a@there.example", "to=<a@there.example>, relay=uucp, .*status=sent", by="127.0.0.1")],
        master_cf=UUCP, files=UUX,
        stored={"boxes/uux": ["^-r -n -z -asomebody@there.example - uucp-gateway!rmail \\(a@there.example\\)$"]}),
    "Internet to UUCP": Scenario("UUCP", "Internet to UUCP gateway", (
        "transport_maps = hash:{etc}/transport\nrelay_domains = uu.example\n"), [
            Mail("a@uu.example", "to=<a@uu.example>, relay=uucp, .*status=sent"),
            Mail("a@deep.uu.example", "to=<a@deep.uu.example>, relay=uucp, .*status=sent"),
            Mail("a@there.example", "454 4.7.1")],
        files={"transport": "uu.example uucp:uucp-host\n.uu.example uucp:uucp-host\n", **UUX}, master_cf=UUCP,
        stored={"boxes/uux": ["uucp-host!rmail \\(a@deep.uu.example\\)$"]}),
}
