"""local(8) beside Debian's: the same aliases, homes and messages, and then the stored bytes, owners, modes and log lines."""
import os
import tempfile

import pytest

from local_pair import Case, Group, Users, differences
from oracle import Oracle

ENV = '"|env | grep -v -e ^_= -e ^PWD= -e ^LD_ -e ^SHLVL= | sort > %d/env"'

PLAIN = [
    Case("a mailbox"),
    Case("upper case", to="%u@MAIL.EXAMPLE"),
    Case("an extension", to="%u+ext"),
    Case("two extensions", to="%u+one+Two"),
    Case("an empty extension", to="%u+"),
    Case("mixed case with extension", to="%u+Ext@Mail.Example"),
    Case("From_ lines", body="Subject: x\n\nFrom the start\n>From quoted\nFrom: x\n\nFrom here\n\nFrom\nFromage\n From blank\nFrom "),
    Case("a body without end of line", body="Subject: x\n\nno end"),
    Case("a header only", body="Subject: x\n"),
    Case("nothing at all", body=""),
    Case("a null sender's mark", sender="%a@sender.example", body="Return-Path: <old@far.example>\nSubject: x\n\ny\n"),
    Case("eight bits", body="Subject: x\n\n" + "\u00e9\u00fc\n".encode().decode("latin-1")),
    Case("a long line", body="Subject: x\n\n" + "x" * 5000 + "\n"),
    Case("two mailboxes", to=["%u", "%v"]),
    Case("the same twice", to=["%u", "%u"]),
    Case("nobody there", to="%a-nobody"),
    Case("nobody there with extension", to="%a-nobody+ext"),
    Case("a loop in the header", body="Delivered-To: %u@mail.example\nSubject: x\n\nhello\n"),
    Case("a loop in other letters", body="delivered-to: %u@MAIL.example\nSubject: x\n\nhello\n"),
    Case("a loop with another extension", to="%u+b", body="Delivered-To: %u+a@mail.example\nSubject: x\n\nhello\n"),
    Case("a loop of somebody else", body="Delivered-To: %v@mail.example\nSubject: x\n\nhello\n"),
    Case("a mailbox that is a directory", setup="mkdir %s/%u"),
    Case("a mailbox that is a fifo", setup="mkfifo %s/%u; chown %u %s/%u"),
    Case("a mailbox with two names", setup="echo old > %s/%u; chown %u %s/%u; ln %s/%u %s/%u.other"),
    Case("a mailbox that is a link", setup="ln -s %h/box %s/%u; touch %h/box; chown %u %h/box"),
    Case("a link into nothing", setup="ln -s %d/nothing %s/%u"),
    Case("a mailbox of somebody else", setup="echo old > %s/%u; chown %v %s/%u; chmod 666 %s/%u"),
    Case("a mailbox of root", setup="echo old > %s/%u; chmod 600 %s/%u"),
    Case("a mailbox that has mail", setup="printf 'From a  b\\n\\nx\\n\\n' > %s/%u; chown %u %s/%u; chmod 660 %s/%u"),
    Case("a mailbox that may only be read", setup="printf 'x\\n\\n' > %s/%u; chown %u %s/%u; chmod 400 %s/%u"),
    Case("a fresh lock file", setup="touch %s/%u.lock"),
    Case("an old lock file", setup="touch -d '1 hour ago' %s/%u.lock; chown %u %s/%u.lock"),
    # --- aliases ---
    Case("an alias of a user", to="%a", aliases="%a: %u"),
    Case("an alias in capitals", to="%a", aliases="%a: %u"),
    Case("an alias of two", to="%a", aliases="%a: %u, %v"),
    Case("an alias of one twice", to="%a", aliases="%a: %u, %u, %u@mail.example"),
    Case("an alias with extension", to="%a+ext", aliases="%a: %u"),
    Case("an alias for one extension", to="%a+ext", aliases="%a: %v\n%a+ext: %u"),
    Case("an alias of an alias", to="%a", aliases="%a: %a-b\n%a-b: %a-c\n%a-c: %u"),
    Case("an alias of an address with extension", to="%a", aliases="%a: %u+ext"),
    Case("an alias of itself", to="%u", aliases="%u: %u"),
    Case("an alias of itself and more", to="%u", aliases="%u: %u, %v"),
    Case("an alias of itself with a backslash", to="%u", aliases="%u: \\%u, %v"),
    Case("an alias of itself that is no user", to="%a", aliases="%a: %a"),
    Case("a ring of two", to="%a", aliases="%a: %a-b\n%a-b: %a"),
    Case("elsewhere", to="%a", aliases="%a: far@far.example"),
    Case("here and elsewhere", to="%a", aliases="%a: %u, far@far.example"),
    Case("elsewhere twice", to="%a", aliases="%a: far@far.example, FAR@far.example, far@mid.example"),
    Case("elsewhere through two aliases", to="%a", aliases="%a: %a-b, far@far.example\n%a-b: far@far.example"),
    Case("an alias of nobody", to="%a", aliases="%a: %a-nobody"),
    Case("an alias of somebody and nobody", to="%a", aliases="%a: %u, %a-nobody, %v"),
    Case("a file", to="%a", aliases="%a: %d/file"),
    Case("a file that is there", to="%a", aliases="%a: %d/file", setup="echo old > %d/file; chmod 666 %d/file"),
    Case("a file twice", to="%a", aliases="%a: %d/file, %a-b\n%a-b: %d/file"),
    Case("a Maildir", to="%a", aliases="%a: %d/maildir/"),
    Case("a Maildir that cannot be made", to="%a", aliases="%a: %h/maildir/"),
    Case("a file in a directory that is not there", to="%a", aliases="%a: %d/no/file"),
    Case("a file nobody may write to", to="%a", aliases="%a: %h/file"),
    Case("a directory", to="%a", aliases="%a: %d/dir", setup="mkdir %d/dir; chmod 777 %d/dir"),
    Case("/dev/null", to="%a", aliases="%a: /dev/null"),
    Case("a file and a user", to="%a", aliases="%a: %d/file, %u"),
    Case("a file with a blank", to="%a", aliases='%a: "%d/a file"'),
    Case("a command", to="%a", aliases='%a: "|cat > %d/out"'),
    Case("a command with the bar outside", to="%a", aliases='%a: |"cat > %d/out"'),
    Case("a command without shell", to="%a", aliases='%a: "|tee %d/out"'),
    Case("a command's rights", to="%a", aliases='%a: "|id > %d/out"'),
    Case("a command's environment", to="%a+ext", aliases=f"%a: {ENV.replace('%d/env', '%d/env')}"),
    Case("a command twice", to="%a", aliases='%a: "|cat >> %d/out", %a-b\n%a-b: "|cat >> %d/out"'),
    Case("a command that reads nothing", to="%a", aliases='%a: "|true"', body="Subject: x\n\n" + "y" * 70 + "\n"),
    Case("a command that is not there", to="%a", aliases='%a: "|/nonexistent/program -x"'),
    Case("a command that is not there, for the shell", to="%a", aliases='%a: "|/nonexistent/program; exit 75"'),
    *[Case(f"exit {n}", to="%a", aliases=f'%a: "|echo said; exit {n}"')
      for n in (1, 2, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 99, 127, 255)],
    Case("exit without words", to="%a", aliases='%a: "|exit 77"'),
    *[Case(f"a status in words: {text}", to="%a", aliases=f'%a: "|echo {text}; exit {n}"')
      for text, n in (("5.7.1 not for you", 1), ("4.2.2 later", 77), ("2.0.0 fine", 1), ("4.3.0", 1), ("5.1", 1),
                      ("5.1.1000 big", 1), ("5.7.1 sent", 0), (" 5.7.1 blank", 1), ("4.7.1", 75), ("x 5.7.1", 69))],
    Case("two lines", to="%a", aliases='%a: "|echo one; echo two >&2; exit 69"'),
    Case("a tab and a bell", to="%a", aliases="%a: \"|printf 'a\\\\tb\\\\007c'; exit 69\""),
    Case("a signal", to="%a", aliases="%a: \"|kill -9 $$\""),
    Case("a signal and words", to="%a", aliases="%a: \"|echo dying; kill -15 $$\""),
    Case("an included list", to="%a", aliases="%a: :include:%d/list", setup="echo %u > %d/list; echo '# no' >> %d/list"),
    Case("an included list of many forms", to="%a", aliases="%a: :include:%d/list",
         setup="cat > %d/list <<X\n%u, far@far.example\n\n  %v\nName <n@far.example>\n\"Q, R\" <q@far.example> (c)\nX\n"),
    Case("an included command", to="%a", aliases="%a: :include:%d/list", setup="echo '\"|cat > %d/out\"' > %d/list"),
    Case("an included file", to="%a", aliases="%a: :include:%d/list", setup="echo '%d/file' > %d/list"),
    Case("an included list that is not there", to="%a", aliases="%a: :include:%d/list"),
    Case("an included list that nobody may read", to="%a", aliases="%a: :include:%d/list",
         setup="echo %u > %d/list; chmod 600 %d/list"),
    Case("an included list for everybody to write", to="%a", aliases="%a: :include:%d/list",
         setup="echo %u > %d/list; chmod 666 %d/list"),
    Case("an included directory", to="%a", aliases="%a: :include:%d"),
    Case("an included relative path", to="%a", aliases="%a: :include:list"),
    Case("an empty included list", to="%a", aliases="%a: :include:%d/list", setup="touch %d/list",
         differs=("", "status=sent (discarded)")),
    Case("an included list that includes itself", to="%a", aliases="%a: :include:%d/list",
         setup="echo :include:%d/list > %d/list",
         differs=("", "dsn=5.4.6, status=bounced (file inclusion loop for ")),
    Case("an included list in an included list", to="%a", aliases="%a: :include:%d/list",
         setup="echo :include:%d/more > %d/list; echo %u > %d/more"),
    Case("an included list and more", to="%a", aliases="%a: :include:%d/list, %v", setup="echo %u > %d/list"),
    Case("an owner", to="%a", aliases="%a: far@far.example\nowner-%a: %u"),
    Case("an owner and local members", to="%a", aliases="%a: %u, %v\nowner-%a: far@far.example"),
    Case("an owner of a command", to="%a", aliases='%a: "|cat > %d/out"\nowner-%a: far@far.example'),
    Case("an owner of a file", to="%a", aliases="%a: %d/out\nowner-%a: far@far.example"),
    Case("an owner's alias itself", to="owner-%a", aliases="%a: far@far.example\nowner-%a: %u"),
    Case("a request address", to="%a-request", aliases="%a-request: %u\nowner-%a-request: far@far.example"),
    Case("an alias with an owner in an alias", to="%a",
         aliases="%a: %a-b, %u\nowner-%a: %u\n%a-b: %v, far@far.example"),
    Case("an alias below one with an owner", to="%a",
         aliases="%a: %a-b\nowner-%a: %u\n%a-b: far@far.example\nowner-%a-b: %v"),
    Case("a quoted alias", to='"%a x"@mail.example', aliases='"%a x": %u'),
    Case("an alias of a list in quotes", to="%a", aliases='%a: "%u", "far"@far.example'),
    Case("an alias with comments", to="%a", aliases="%a: %u (the user), (nobody)"),
    Case("an alias of a full name", to="%a", aliases="%a: Full Name <%u@mail.example>, <%v@mail.example>"),
    Case("an alias without commas", to="%a", aliases="%a: %u %v"),
    Case("an alias over lines", to="%a", aliases="%a: %u,\n  %v"),
    Case("an alias with a group", to="%a", aliases="%a: people: %u, %v;"),
    Case("a route", to="%a", aliases="%a: @far.example:%u@mail.example"),
    Case("an alias of a bang path", to="%a", aliases="%a: far.example!user"),
    Case("a domain that is here under another name", to="%a", aliases="%a: %u@localhost"),
    Case("a list of aliases", to="%a", setup="echo %a-b > %d/list; echo %a-c >> %d/list",
         aliases="%a: :include:%d/list\n%a-b: %u, far@far.example\n%a-c: %v, mid@mid.example"),
    Case("a list in an alias in an alias", to="%a", setup="echo %a-b > %d/list",
         aliases="%a: %a-l\n%a-l: :include:%d/list\n%a-b: %u, far@far.example"),
    Case("a list with an owner", to="%a", aliases="%a: :include:%d/list, %v\nowner-%a: o@far.example",
         setup="echo %u > %d/list; echo f@far.example >> %d/list"),
    Case("a list that is a link", to="%a", aliases="%a: :include:%d/link", setup="echo %u > %d/list; ln -s %d/list %d/link"),
    Case("a list of nobody", to="%a", aliases="%a: :include:%d/list", setup="echo %a-nobody > %d/list"),
    Case("a list of itself", to="%a", aliases="%a: :include:%d/list", setup="echo %a > %d/list"),
    Case("a user's list of the user", to="%u", aliases="%u: :include:%d/list", setup="echo %u > %d/list"),
    Case("a member of a list loops", to="%a", aliases="%a: :include:%d/list", setup="echo %u > %d/list; echo %v >> %d/list",
         body="Delivered-To: %u@mail.example\nSubject: x\n\ny\n"),
    Case("a command below an owner", to="%a+ext", aliases="%a: %a-b\nowner-%a: o@far.example\n%a-b: " + ENV, differs=("to=<case", "orig_to=<case")),
    Case("an alias with owner of one with another", to="%a",
         aliases="%a: %a-b, %v\nowner-%a: o@far.example\n%a-b: %u, f@far.example\nowner-%a-b: p@far.example"),
    Case("an owner of nobody", to="%a", aliases="%a: %a-nobody\nowner-%a: o@far.example"),
    Case("an alias of two, one of whom loops", to="%a", aliases="%a: %u, %v",
         body="Delivered-To: %u@mail.example\nSubject: x\n\ny\n"),
    # --- ~/.forward ---
    Case("a forward file elsewhere", forward="far@far.example\n"),
    Case("a forward file to another", forward="%v\n"),
    Case("a forward file to oneself and another", forward="%u, %v\n"),
    Case("a forward file with a backslash", forward="\\%u, far@far.example\n"),
    Case("a forward file to oneself with extension", forward="%u+kept, %v\n"),
    Case("a forward file to one's full address", forward="%u@mail.example, far@far.example\n"),
    Case("a forward file for one extension", to="%u+ext", forward="far@far.example\n",
         setup="echo %v > %h/.forward+ext; chown %u %h/.forward+ext"),
    Case("a forward file for no extension", to="%u+ext", forward="%v\n"),
    Case("an empty forward file", forward=""),
    Case("a forward file of comments", forward="# nothing\n#more\n"),
    Case("a forward file of blank lines", forward="\n  \n\n"),
    Case("a forward file with lines", forward="%u\n%v\n\"|cat > %d/out\"\n%d/file\n"),
    Case("a forward file's command", to="%u+x", forward=ENV + "\n"),
    Case("a forward file's rights", forward='"|id > %d/out"\n'),
    Case("a forward file's file", forward="%h/file\n"),
    Case("a forward file's Maildir", forward="%h/Maildir/\n"),
    Case("a forward file's Maildir with extension", to="%u+x", forward="%h/Maildir/\n"),
    Case("a forward file's file with two names", forward="%h/file\n",
         setup="echo old > %h/file; chown %u %h/file; ln %h/file %h/other"),
    Case("a forward file's link", forward="%h/file\n", setup="ln -s %d/target %h/file; chown -h %u %h/file"),
    Case("a forward file's link to what is there", forward="%h/file\n",
         setup="touch %d/target; chown %u %d/target; ln -s %d/target %h/file; chown -h %u %h/file"),
    Case("a forward file's file in another's home", forward="%g/file\n"),
    Case("a forward file's list", forward=":include:%h/list\n", setup="echo %v > %h/list; chown %u %h/list"),
    Case("a forward file's list with a command", forward=":include:%h/list\n",
         setup="echo '|id' > %h/list; chown %u %h/list"),
    Case("a forward file's list that includes itself", forward=":include:%h/list\n",
         setup="echo :include:%h/list > %h/list; chown %u %h/list",
         differs=("", "dsn=5.4.6, status=bounced (file inclusion loop for ")),
    Case("a forward file's list that may not be read", forward=":include:%h/list\n",
         setup="echo %v > %h/list; chmod 600 %h/list"),
    Case("a forward file for everybody to write", forward="%v\n", setup="chmod 666 %h/.forward"),
    Case("a forward file for a group to write", forward="%v\n", setup="chmod 664 %h/.forward"),
    Case("a forward file of root", forward="%v\n", setup="chown 0:0 %h/.forward"),
    Case("a forward file of another", forward="%v\n", setup="chown %v %h/.forward"),
    Case("a forward file that may not be read", forward="%v\n", setup="chmod 000 %h/.forward; chown 0 %h/.forward"),
    Case("a forward file that is a directory", setup="mkdir %h/.forward"),
    Case("a forward file that is a link", setup="echo %v > %h/to; chown %u %h/to; ln -s %h/to %h/.forward"),
    Case("a forward file that is a link into nothing", setup="ln -s %h/to %h/.forward"),
    Case("a forward file in a home that is closed", forward="%v\n", setup="chown 0 %h; chmod 700 %h"),
    Case("two forward files in a ring", forward="%v\n",
         setup="echo %u > %g/.forward; chown %v %g/.forward"),
    Case("a forward file that names nobody", forward="%a-nobody\n"),
    Case("a forward file that names an alias", forward="%a\n", aliases="%a: %v"),
    Case("a forward file that names one's alias", forward="%a\n", aliases="%a: %u"),
    Case("an alias to a user with a forward file", to="%a", aliases="%a: %u", forward="%v\n"),
    Case("an alias to two with forward files to one", to="%a", aliases="%a: %u, %v", forward="%v\n"),
    Case("a forward file with a failing command", forward='%v, "|exit 75"\n'),
    Case("a forward file without end of line", forward="%v"),
    Case("a forward file with returns", forward="%v\r\nfar@far.example\r\n"),
    Case("a forward file with syntax errors", forward='%v, <, "open, far@far.example\n',
         differs=("open, far", "to=<far@far.example>")),
    Case("a home that is not there", setup="rmdir %h"),
    Case("a forward file to an alias of two", forward="%a\n", aliases="%a: %v, %u, far@far.example"),
    Case("a forward file to an alias with owner", forward="%a\n",
         aliases="%a: %v, %u, far@far.example\nowner-%a: own@far.example"),
    Case("an alias to a user who forwards elsewhere", to="%a", aliases="%a: %u, x@far.example",
         forward="y@far.example, %h/box\n"),
    Case("a forward file to oneself in another domain", forward="%u@localhost, %v\n"),
    Case("a forward file to a looping user", forward="%v, far@far.example\n",
         body="Delivered-To: %v@mail.example\nSubject: x\n\ny\n"),
    Case("a bad command keeps all back", to="%a", aliases='%a: far@far.example, "|exit 75", %u'),
    Case("a refusing command keeps nothing back", to="%a", aliases='%a: far@far.example, "|exit 77", %u'),
    Case("postmaster without alias", to="postmaster+%a"),
]

# What other transports do with what they are given is seen in their lines.
TRANSPORTS = [
    Case("to a user of a table", to="listed", aliases="listed-x: %u"),
    Case("to nobody of a table", to="nobody-listed+ext"),
    Case("to a user of no table"),
    Case("to a user with extension", to="%u+ext"),
    Case("to nobody of no table", to="%a-nobody"),
    Case("to an alias", to="%a", aliases="%a: %u, far@far.example"),
    Case("to a user with a forward file", forward="far@far.example, %u\n"),
    Case("to a list with an owner", to="%a", aliases="%a: %u\nowner-%a: far@far.example"),
]
COMMANDS = [
    Case("the environment", to="%u+ext"),
    Case("a user without extension"),
    Case("an alias", to="%a", aliases="%a: %u"),
    Case("a forward file to oneself", forward="%u, far@far.example\n"),
    Case("a name of the table", to="angl001"),
    Case("a name of the table with extension", to="angl001+x"),
    Case("nobody", to="%a-nobody"),
    Case("root", to="root", setup="chmod 777 %d"),
]
BOXES = [
    Case("a mailbox"),
    Case("a mailbox with extension", to="%u+ext"),
    Case("a mailbox that is there", setup="mkdir -p %h/mail; echo old > %h/mail/box; chown -R %u %h/mail"),
    Case("a home that is closed", setup="chown 0 %h"),
    Case("a home that is not there", setup="rmdir %h"),
    Case("a home that is a file", setup="rmdir %h; touch %h"),
    Case("a big message", body="Subject: x\n\n" + ("y" * 70 + "\n") * 400),
    Case("a nearly full mailbox", setup="mkdir -p %h/mail; yes | head -c 55000 > %h/mail/box; chown -R %u %h/mail"),
    Case("a full mailbox of an alias", to="%a", aliases="%a: %d/file",
         setup="head -c 60000 /dev/zero > %d/file; chmod 666 %d/file"),
    Case("a command that writes too much", to="%a", aliases='%a: "|head -c 100000 /dev/zero > %d/out"'),
    Case("a Maildir below the home", forward="%h/Maildir/\n", body="Subject: x\n\n" + ("y" * 70 + "\n") * 400),
]
LUSERS = [
    Case("nobody", to="%a-nobody"),
    Case("nobody with extension", to="%a-nobody+Ext"),
    Case("an alias of nobody", to="%a", aliases="%a: %a-nobody, %u"),
    Case("a forward file to nobody", forward="%a-nobody\n"),
    Case("somebody"),
]
SMALL = [
    Case("an alias", to="%a+Ext", aliases="%a: %u, far@far.example, mid+x@mid.example"),
    Case("an alias's command", to="%a+ext", aliases="%a: " + ENV),
    Case("a forward file", to="%u+ext", forward="far@far.example, %v\n"),
    Case("a list", to="%a+ext", aliases="%a: :include:%d/list", setup="echo far@far.example > %d/list"),
    Case("a listed command", to="%a", aliases="%a: :include:%d/list", setup="echo '\"|id > %d/out\"' > %d/list"),
    Case("a listed command of a user", to="%a", aliases="%a: :include:%d/list",
         setup="echo '\"|id > %d/out\"' > %d/list; chown %u:nogroup %d/list"),
    Case("a listed file of a user", to="%a", aliases="%a: :include:%d/list",
         setup="echo %d/out > %d/list; chown %u:nogroup %d/list"),
    Case("a listed list of a user's", to="%a", aliases="%a: :include:%d/list",
         setup="echo :include:%h/more > %d/list; echo '%d/out' > %h/more; chown %u %h/more; chmod 600 %h/more"),
    Case("a listed list that the user may not read", to="%a", aliases="%a: :include:%d/list",
         setup="echo :include:%h/more > %d/list; chown %u %d/list; echo '%d/out' > %h/more; chmod 600 %h/more"),
]
MINUS = [
    Case("the second delimiter", to="%u-ext"),
    Case("the first delimiter", to="%u+ext"),
    Case("both", to="%u+a-b"),
    Case("a forward file of the second", to="%u-ext", forward="far@far.example\n",
         setup="echo %v > %h/.forward-ext; chown %u %h/.forward-ext"),
    Case("a user with the delimiter in the name", to="www-data",
         differs=("unknown user: ", "delivered to mailbox")),
    Case("an owner", to="owner-%a", aliases="%a: %u\nowner-%a: %v"),
    Case("a request", to="%a-request", aliases="%a: %u\n%a-request: %v"),
    Case("an owner that is none", to="owner-%a", aliases="owner: %u"),
    Case("propagated with the second", to="%a-ext", aliases="%a: far@far.example"),
]
GROUPS = {
    "plain": ("", PLAIN),
    "mailbox_transport": ("mailbox_transport = discard\n", TRANSPORTS),
    "mailbox_transport_maps": (
        "mailbox_transport_maps = inline:{ {listed=discard:listed} {nobody-listed=discard:unlisted} "
        "{angl004=error:5.2.1 closed} {angl006=discard} }\n"
        "fallback_transport_maps = inline:{ {case004-nobody=discard:fallen} }\nfallback_transport = discard:behind\n"
        "luser_relay = far@far.example\n", [*TRANSPORTS, Case("to nobody at all", to="%a-nobody")]),
    "tables that fail": ("mailbox_command_maps = fail:x\nfallback_transport_maps = fail:y\n", TRANSPORTS[1:4]),
    "mailbox_transport_maps that fail": ("mailbox_transport_maps = fail:x\n", TRANSPORTS[1:3]),
    "mailbox_command": ("mailbox_command = (cat; env | grep -v -e ^_= -e ^PWD= -e ^LD_ -e ^SHLVL= | sort; id) > "
                        "%root/spool/$LOGNAME.$EXTENSION\n", COMMANDS),
    "mailbox_command_maps": ("mailbox_command_maps = inline:{ {angl001=/usr/bin/tee -a %root/spool/angl001} }\n"
                             "mailbox_command = echo 4.2.1 so; exit 1\ncommand_execution_directory = %root/spool\n",
                             COMMANDS),
    "home_mailbox": ("home_mailbox = mail/box\nmailbox_size_limit = 60000\nmessage_size_limit = 50000\n", BOXES),
    "home_mailbox as Maildir": ("home_mailbox = Maildir/\nrequire_home_directory = yes\n", BOXES[:6]),
    "mail_spool_directory as Maildir": (
        "mail_spool_directory = %root/spool/\nluser_relay = ${user}-${extension?{x}:{y}}-$domain-${recipient_delimiter}@far.example\n",
        [*PLAIN[:3], *LUSERS]),
    "rights of lists": ("allow_mail_to_commands = alias, forward, include\nallow_mail_to_files = alias,forward,include\n"
                        "propagate_unmatched_extensions = alias, forward, include\n", SMALL),
    "what is forbidden": (
        "allow_mail_to_commands = forward\nallow_mail_to_files = forward\nprepend_delivered_header =\n"
        "enable_original_recipient = no\nstrict_mailbox_ownership = no\nforward_expansion_filter = ab\n"
        "forward_path = $home/.forward$recipient_delimiter$extension\nmailbox_delivery_lock = fcntl\n", [
            Case("a file", to="%a", aliases="%a: %d/file"), Case("a user's file", forward="%h/file\n"),
            Case("a user's command", forward='"|cat > %d/out"\n'), Case("a forward file", forward="%v\n"),
            Case("a mailbox"), Case("of another", setup="echo old > %s/%u; chown %v %s/%u; chmod 666 %s/%u"),
            Case("of root", setup="echo old > %s/%u; chmod 600 %s/%u"),
            Case("a lock file", setup="touch %s/%u.lock"),
            Case("filtered", to="%u+aXb", setup="echo far@far.example > %h/.forward+a_b; chown %u %h/.forward+a_b"),
            Case("as it is", to="%u+ab", setup="echo mid@mid.example > %h/.forward+ab; chown %u %h/.forward+ab")]),
    "Delivered-To for files, and one that changes": ("prepend_delivered_header = file\nfrozen_delivered_to = no\n", [
        Case("a command", to="%a", aliases='%a: "|cat > %d/out"'), Case("a file", to="%a", aliases="%a: %d/out"),
        Case("an alias", to="%a", aliases="%a: %u, %v"),
        Case("an alias to a forward file", to="%a", aliases="%a: %u", forward="far@far.example, %v\n"),
        Case("an alias of an alias", to="%a", aliases='%a: %a-b, %u\n%a-b: %d/out, far@far.example')]),
    "owner_request_special": ("owner_request_special = no\nrecipient_delimiter = -\n", MINUS + [
        Case("an owner that means nothing", to="%a", aliases="%a: far@far.example\nowner-%a: %u")]),
    "recipient_delimiter of two": ("recipient_delimiter = +-\npropagate_unmatched_extensions = alias\n", MINUS),
    "recipient_delimiter of none": ("recipient_delimiter =\n", MINUS[:3] + [
        Case("a forward file", to="%u+ext", forward="far@far.example\n")]),
    "commands": (
        "default_privs = daemon\nexport_environment = TZ=Nowhere { GREETING = hello there }\n"
        "command_expansion_filter = abcdefghijklmnopqrstuvwxyz.@\ncommand_execution_directory = %root/$extension\n"
        "execution_directory_expansion_filter = ab/\ncommand_time_limit = 1s\nduplicate_filter_limit = 1\n"
        "stale_lock_time = 1s\ndeliver_lock_attempts = 4\n"
        "local_delivery_status_filter = inline:{ {2.0.0 delivered to mailbox=2.1.0 put away} "
        "{5.7.0 permission denied=4.7.0 not yet} }\n", [
            Case("the environment", to="%a+Ext", aliases="%a: " + ENV, setup="mkdir -p ../___"),
            Case("rights", to="%a", aliases='%a: "|id > %d/out"'), Case("a file", to="%a", aliases="%a: %d/out"),
            Case("filtered", to="%u+abc", forward='"|pwd > %d/out"\n', setup="mkdir -p ../ab_; chmod 755 ../ab_"),
            Case("not there", to="%u+bbb", forward='"|pwd > %d/out"\n',
                 differs=("(temporary failure)", "cannot change directory to ROOT/bbb: No such file")),
            Case("too long", to="%a", aliases='%a: "|sleep 600; echo"'),
            Case("too long without shell", to="%a", aliases='%a: "|sleep 600"'),
            Case("too long with words", to="%a", aliases='%a: "|echo words; sleep 600"'),
            Case("an old lock", setup="touch %s/%u.lock; chown %u %s/%u.lock"),
            Case("an old lock of another", setup="touch %s/%u.lock; chown %v %s/%u.lock",
                 differs=("Operation not permitted", "status=deferred")),
            Case("the second twice", to="%a", aliases="%a: %d/one, %d/two, %d/two"),
            Case("failed", to="%a", aliases='%a: "|exit 77"')]),
    "local_command_shell": ("local_command_shell = /bin/sh -c\nforward_path =\n", [
        Case("a command", to="%a", aliases='%a: "|cat"'), Case("a shell's command", to="%a", aliases='%a: "|cat > %d/out"'),
        Case("a forward file", forward="far@far.example\n")]),
}


@pytest.fixture(scope="module")
def users():
    why = Oracle.why_not()
    if why:
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="angarium-homes-") as name:
        os.chmod(name, 0o755)
        made = Users(name, 2 * max(len(cases) for _, cases in GROUPS.values()))
        yield made
        made.close()


@pytest.mark.parametrize("name", GROUPS)
def test_group(users, name):
    main_cf, cases = GROUPS[name]
    with tempfile.TemporaryDirectory(prefix="angarium-local-pair-") as root:
        group = Group(users, cases, main_cf, os.path.join(root, "x"))
        os.chmod(root, 0o755)
        theirs = group.with_oracle()
        ours = group.with_ours()
    wrong = []
    for case, x, y in zip(cases, theirs, ours):
        found = differences(x, y)
        if case.differs:
            expected, instead = case.differs
            if not any(expected in str(part) for part in x) or not any(instead in str(part) for part in y):
                wrong += [f"--- {name}: {case.name}: not the difference that is known:", *found]
        elif found or not x[0]:
            wrong += [f"--- {name}: {case.name}:", *(found or ["no result in Debian's log"])]
    assert not wrong, "\n".join(wrong)
