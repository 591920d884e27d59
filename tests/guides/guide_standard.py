"""STANDARD_CONFIGURATION_README: hosts of every kind. home.example is the guide's own domain."""
from guide_world import LAN, STRANGER, Mail, Scenario

GUIDE = "STANDARD_CONFIGURATION"
HOME_MX = {("home.example", "MX"): (60, ["10 mailhost.home.example."])}
BOX = "status=sent \\(delivered to mailbox\\)"


def far(host, port="\\d+"):
    return f"relay={host}\\[127.0.0.3\\]:{port}, .*status=sent"


SCENARIOS = {
    "alone, no relaying": Scenario(GUIDE, "stand-alone host", (
        "mynetworks_style = host\nrelay_domains =\nmyorigin = $mydomain\nproxy_interfaces = 198.51.100.4\n"
        "mydestination = $myhostname, localhost, $mydomain\n"), [
            Mail("{me}@hostname.home.example", f"to=<{{me}}@hostname.home.example>, .*{BOX}"),
            Mail("{me}@[198.51.100.4]", f"to=<{{me}}@\\[198.51.100.4\\]>, .*{BOX}"),
            Mail("a@there.example", "454 4.7.1 .*Relay access denied"),
            Mail("a@there.example", "454 4.7.1 .*Relay access denied", by="127.0.0.2"),
            Mail("a@there.example", f"to=<a@there.example>, {far('there.example')}", by="127.0.0.1"),
            Mail("b@there.example", "to=<b@there.example>", by="sendmail", sender="{me}",
                 came=("^From <{me}@home.example> ", "^From: (.* <)?{me}@home.example"))]),
    "alone, for its clients": Scenario(GUIDE, "stand-alone host, local clients", (
        "mynetworks = 192.168.1.0/28\nrelay_domains =\n"), [
            Mail("a@there.example", f"to=<a@there.example>, {far('there.example')}", by="192.168.1.15"),
            Mail("a@there.example", "454 4.7.1 .*Relay access denied", by="192.168.1.16")]),
    "null client": Scenario(GUIDE, "null client", (
        "myorigin = $mydomain\nrelayhost = $mydomain\ninet_interfaces = loopback-only\nmydestination =\n"), [
            Mail("root", f"to=<root@home.example>, orig_to=<root>, {far('mailhost.home.example')}", by="sendmail", sender="{me}",
                 came=("^From <{me}@home.example> to \\['root@home.example'\\]",)),
            Mail("x@there.example", f"to=<x@there.example>, {far('mailhost.home.example')}", by="sendmail")], zone=HOME_MX),
    "machine of a local network": Scenario(GUIDE, "local network, other machines", (
        "myorigin = $mydomain\nmynetworks = 127.0.0.0/8 10.0.0.0/24\nrelay_domains =\n"), [
            Mail("{me}@hostname.home.example", f"to=<{{me}}@hostname.home.example>, .*{BOX}"),
            Mail("{me}", f"to=<{{me}}@home.example>, .*{far('mailhost.home.example')}", by="sendmail"),
            Mail("a@there.example", f"to=<a@there.example>, {far('there.example')}", by=LAN),
            Mail("a@there.example", "454 4.7.1", by=STRANGER)], zone=HOME_MX),
    "the local network's mail host": Scenario(GUIDE, "local network, mailhost", (
        "myorigin = $mydomain\nmydestination = $myhostname localhost.$mydomain localhost $mydomain\n"
        "mynetworks = 127.0.0.0/8 10.0.0.0/24\nrelay_domains =\nrelayhost = [firewall.home.example]\n"
        "alias_maps = hash:{etc}/aliases\n"), [
            Mail("{me}@home.example", f"to=<{{me}}@home.example>, .*{BOX}"),
            Mail("{me}@localhost.home.example", f"to=<{{me}}@localhost.home.example>, .*{BOX}"),
            Mail("joe@home.example", f"to=<joe@joes.machine.example>, .*{far('firewall.home.example')}"),
            Mail("jane@home.example", f"to=<jane@janes.machine.example>, .*{far('firewall.home.example')}"),
            Mail("nobody-there@home.example", "550 5.1.1 .*User unknown in local recipient table")],
        files={"aliases": "joe: joe@joes.machine.example\njane: jane@janes.machine.example\n"}, zone=HOME_MX),
    "firewall": Scenario(GUIDE, "firewall or gateway", (
        "myorigin = home.example\nmydestination =\nlocal_recipient_maps =\n"
        "local_transport = error:local mail delivery is disabled\nvirtual_alias_maps = hash:{etc}/virtual\n"
        "mynetworks = 127.0.0.0/8 12.34.56.0/24\nrelay_domains = home.example\n"
        "parent_domain_matches_subdomains =\n    debug_peer_list smtpd_access_maps\n"
        "smtpd_relay_restrictions =\n    permit_mynetworks reject_unauth_destination\n"
        "relay_recipient_maps = hash:{etc}/relay_recipients\ntransport_maps = hash:{etc}/transport\n"), [
            Mail("user1@home.example", f"to=<user1@home.example>, {far('inside-gateway.home.example')}"),
            Mail("user3@home.example", "550 5.1.1 .*User unknown in relay recipient table"),
            Mail("user1@inner.home.example", "554 5.7.1 .*Relay access denied"),
            Mail("user1@there.example", f"to=<user1@there.example>, {far('there.example')}", by="12.34.56.78"),
            Mail("postmaster@[127.0.0.1]", f"to=<postmaster@home.example>, .*{far('inside-gateway.home.example')}"),
            Mail("abuse@[127.0.0.1]", f"to=<abuse@home.example>, .*{far('inside-gateway.home.example')}"),
            Mail("{me}@hostname.home.example", f"to=<{{me}}@hostname.home.example>, {far('hostname.home.example')}", by="sendmail"),
            Mail("{me}@[127.0.0.1]", "status=bounced \\(local mail delivery is disabled\\)", by="sendmail", sender="<>")],
        files={"virtual": "postmaster postmaster@home.example\nabuse abuse@home.example\n",
               "relay_recipients": "user1@home.example x\nuser2@home.example x\npostmaster@home.example x\nabuse@home.example x\n",
               "transport": "home.example smtp:[inside-gateway.home.example]\n"}),
    "firewall, older form": Scenario(GUIDE, "firewall or gateway, one list", (
        "mydestination =\nmynetworks = 127.0.0.0/8 12.34.56.0/24\nrelay_domains = home.example\nsmtpd_relay_restrictions =\n"
        "smtpd_recipient_restrictions =\n    permit_mynetworks reject_unauth_destination\nrelay_recipient_maps =\n"), [
            Mail("any@home.example", f"to=<any@home.example>, {far('mailhost.home.example')}"),
            Mail("any@there.example", "554 5.7.1 .*Relay access denied"),
            Mail("any@there.example", "to=<any@there.example>, ", by="12.34.56.1")], zone=HOME_MX),
    "some accounts here": Scenario(GUIDE, "some accounts delivered locally", (
        "myorigin = $mydomain\nvirtual_alias_maps = hash:{etc}/virtual\nmydestination = $myhostname localhost\n"), [
            Mail("{me}", f"to=<{{me}}@localhost>, orig_to=<{{me}}>, .*{BOX}", by="sendmail"),
            Mail("daemon", f"to=<daemon@home.example>, orig_to=<daemon>, .*{far('mailhost.home.example')}", by="sendmail")],
        files={"virtual": "{me} {me}@localhost\n"}, zone=HOME_MX),
    "behind a firewall": Scenario(GUIDE, "behind a firewall", (
        "transport_maps = hash:{etc}/transport\nrelayhost =\nfallback_relay = [gateway.home.example]\n"), [
            Mail("a@home.example", f"to=<a@home.example>, {far('mailhost.home.example')}", by="127.0.0.1"),
            Mail("a@inner.home.example", f"to=<a@inner.home.example>, {far('inner.home.example')}", by="127.0.0.1"),
            Mail("a@down.home.example", f"to=<a@down.home.example>, {far('gateway.home.example')}", by="127.0.0.1"),
            Mail("a@there.example", f"to=<a@there.example>, {far('gateway.home.example')}", by="127.0.0.1")],
        files={"transport": "home.example :\n.home.example :\n* smtp:[gateway.home.example]\n"},
        zone={**HOME_MX, ("down.home.example", "A"): (60, ["127.0.0.4"])}),
    "secondary MX": Scenario(GUIDE, "backup MX", (
        "relay_domains = backed-up.example\nsmtpd_relay_restrictions =\n    permit_mynetworks reject_unauth_destination\n"
        "relay_recipient_maps = hash:{etc}/relay_recipients\nproxy_interfaces = 198.51.100.4\n"), [
            Mail("user1@backed-up.example", f"to=<user1@backed-up.example>, {far('primary.backed-up.example')}"),
            Mail("user3@backed-up.example", "550 5.1.1 .*User unknown in relay recipient table"),
            Mail("user1@elsewhere.example", "554 5.7.1")],
        files={"relay_recipients": "user1@backed-up.example x\nuser2@backed-up.example x\n"},
        zone={("backed-up.example", "MX"): (60, ["10 primary.backed-up.example.", "100 outside.home.example."]),
              ("outside.home.example", "A"): (60, ["198.51.100.4"])}),
    "primary MX": Scenario(GUIDE, "primary MX", (
        "relay_domains = backed-up.example\nrelay_recipient_maps = hash:{etc}/relay_recipients\n"
        "transport_maps = hash:{etc}/transport\n"), [
            Mail("any@backed-up.example", f"to=<any@backed-up.example>, {far('their.mail.example')}")],
        files={"relay_recipients": "@backed-up.example x\n", "transport": "backed-up.example relay:[their.mail.example]\n"},
        zone={("backed-up.example", "MX"): (60, ["10 hostname.home.example."])}),
    "fantasy name, mapped both ways": Scenario(GUIDE, "no real host name, solution 2", (
        "canonical_maps = hash:{etc}/canonical\nvirtual_alias_maps = hash:{etc}/virtual\n"
        "mydestination = $myhostname, localhost, $mydomain\n"), [
            Mail("a@there.example", "to=<a@there.example>", by="sendmail", sender="{me}",
                 came=("^From <account@isp.example> ", "^From: (.* <)?account@isp.example", "^Cc: other@hostname.home.example"),
                 header="Cc: other\n"),
            Mail("account@isp.example", f"to=<{{me}}@hostname.home.example>, orig_to=<account@isp.example>, .*{BOX}", by="sendmail"),
            Mail("other@isp.example", f"to=<other@isp.example>, {far('isp.example')}", by="sendmail")],
        files={"canonical": "{me} account@isp.example\n", "virtual": "account@isp.example {me}\n"}),
    "fantasy name, mapped on the way out": Scenario(GUIDE, "no real host name, solution 1", (
        "smtp_generic_maps = hash:{etc}/generic\n"), [
            Mail("a@there.example", "to=<a@there.example>", by="sendmail", sender="{me}",
                 came=("^From <account@isp.example> ", "^From: (.* <)?account@isp.example", "^Cc: account\\+home@isp.example"),
                 header="Cc: other\n"),
            Mail("{me}", f"to=<{{me}}@hostname.home.example>.*{BOX}", by="sendmail", sender="{me}", header="X-Kept: yes\n")],
        files={"generic": "{me}@hostname.home.example account@isp.example\n@hostname.home.example account+home@isp.example\n"},
        stored={"mail/{me}": ["^From: .*{me}@hostname.home.example"]}),
}
