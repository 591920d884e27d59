#!/usr/bin/env python3
"""The manual: postconf(5) from the rows the code uses and docs/manual/parameters/, and all pages as HTML.

usage: manual.py check ROOT BUILD_CONFIG_H             say what does not fit together; 1 when something does not
       manual.py postconf ROOT BUILD_CONFIG_H PAGE     write postconf.5
       manual.py html POSTCONF_5 OUTPUT_FOLDER PAGE... write a page each, and index.html; needs mandoc
       manual.py lint PAGE...                          what mandoc warns of; 1 when there is something

docs/manual/README.md says how texts and pages are written.
"""
import html
import pathlib
import re
import subprocess
import sys
import textwrap

PARAM = re.compile(r"^PARAM\((\w+), (\w+)(?:\('(\w)'\))?, (.*), (\d+), (\d+), (\w+), (\".*\")\)$", re.M)
SERVICE = re.compile(r"^SERVICE_PARAM\((\w+), \"(\w+)\", (\w+)(?:\('(\w)'\))?, (.*), (\d+), (\d+), (\w+)\)$", re.M)
LEGACY = re.compile(r'^LEGACY\((\w+), (\w+), "(.*)"\)$', re.M)
HEAD = re.compile(r"^\[(\w+)\](?: since ([\d.]+))?(?: like (\w+))?$")
# what the machine decides; `postconf -d` prints it
COMPUTED = {
    "myhostname": "the name of this machine, with a domain",
    "mydomain": "myhostname without its first label",
    "mynetworks": "see mynetworks_style",
    "process_id": "the id of the process",
    "process_name": "the name of the program",
    "service_name": "the service's name in master.cf",
}
# parameters whose name is a word of its own in a sentence only between backticks
WORDS = {"biff", "stress"}
# whose counterpart a row is that is only "like" another
OF_WHOM = {"lmtp": "for LMTP", "postscreen": "for postscreen(8)", "tlsproxy": "for tlsproxy(8)"}
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
SECTIONS = {"1": "Commands", "5": "Files and formats", "8": "Daemons"}
STYLE = """\
body { font: 1rem/1.5 sans-serif; max-width: 46rem; margin: 0 auto; padding: 0 1rem 4rem; color: #222; background: #fff }
a { color: #05a } h1 { font-size: 1.2rem } h2 { font-size: 1.1rem; margin: 1.2rem 0 .3rem }
dt { font-weight: bold; margin-top: 1rem } dd { margin-left: 1.2rem } dd > p { margin: .3rem 0 }
pre, code { font-family: monospace; overflow-wrap: anywhere } pre { white-space: pre-wrap; background: #f3f3f3; padding: .4rem }
var, .Va { font-style: normal; font-family: monospace; overflow-wrap: anywhere }
table.head, table.foot { width: 100%; color: #666 } .head-vol, .foot-date { text-align: center }
.head-rtitle, .foot-os { text-align: right } .Bd-indent { margin-left: 1.2rem }
a.permalink { color: inherit; text-decoration: none }
:target { background: #ffd }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818 } a { color: #8bf } pre { background: #2a2a2a }
  :target { background: #440 } }
"""


class Problem(Exception):
    pass


# --- the rows ---

class Row:
    def __init__(self, name, kind, unit, default, low, high, status, note):
        self.name, self.kind, self.unit, self.default = name, kind, unit, default
        self.low, self.high, self.status, self.note = int(low), int(high), status, note


def c_text(source, defines):
    """A C string: literals and names of build_config.h, one behind the other."""
    out = ""
    for literal, name in re.findall(r'"((?:[^"\\]|\\.)*)"|(\w+)', source):
        if name and name not in defines:
            raise Problem(f"params.def: {name} is not in build_config.h")
        out += defines[name] if name else literal.encode().decode("unicode_escape")
    return out


def read_rows(root, build_config):
    """All rows by name, <service> ones by their suffix; the legacy rows."""
    defines = dict(re.findall(r'^#define (\w+) "(.*)"$', build_config.read_text(), re.M))
    conf = root / "src/conf"
    rows = {}
    for m in PARAM.finditer((conf / "params.def").read_text()):
        name, kind, unit, default, low, high, status, note = m.groups()
        rows[name] = Row(name, kind, unit, c_text(default, defines), low, high, status, c_text(note, defines))
    for m in SERVICE.finditer((conf / "service_params.def").read_text()):
        _, name, kind, unit, default, low, high, status = m.groups()
        rows[name] = Row(name, kind, unit, c_text(default, defines), low, high, status, "")
    legacy = {name: (kind, instead) for name, kind, instead in LEGACY.findall((conf / "legacy.def").read_text())}
    return rows, legacy


# --- the texts ---

class Text:
    def __init__(self, place, since, like):
        self.place, self.since, self.like, self.lines, self.examples = place, since, like, [], []

    @property
    def prose(self):
        return " ".join(self.lines)

    @property
    def first_sentence(self):
        return re.split(r"(?<=\.) (?=[A-Z`])", self.prose)[0]


def read_texts(root):
    texts, problems = {}, []
    for path in sorted((root / "docs/manual/parameters").glob("*.txt")):
        text = None
        for number, line in enumerate(path.read_text().splitlines(), 1):
            place = f"{path.relative_to(root)}:{number}"
            if line.startswith("["):
                head = HEAD.match(line)
                if not head:
                    problems.append(f"{place}: malformed head")
                    continue
                text = Text(place, head[2], head[3])
                if head[1] in texts:
                    problems.append(f"{place}: {head[1]} is there twice")
                texts[head[1]] = text
            elif not line.strip():
                continue
            elif text is None:
                problems.append(f"{place}: text before the first name")
            else:
                (text.examples if line.startswith("    ") else text.lines).append(line.strip())
    return texts, problems


def check_texts(rows, legacy, texts):
    problems = [f"{name}: no text in docs/manual/parameters" for name in rows if name not in texts]
    for name, text in texts.items():
        if name not in rows:
            problems.append(f"{text.place}: {name} is no parameter")
        if text.like and (text.like not in texts or not texts[text.like].lines):
            problems.append(f"{text.place}: like {text.like}, which has no text")
        if not text.like and not text.lines:
            problems.append(f"{text.place}: {name} has no text")
        if text.prose.count("`") % 2:
            problems.append(f"{text.place}: a backtick too many, or one too few")
        plain = re.sub(r"`[^`]*`", "", text.prose)
        for word in re.findall(r"\b\w*_\w+\b", plain):
            if word not in rows and word not in legacy:
                problems.append(f"{text.place}: {word} is no parameter; put words that are not into backticks")
    return problems


# --- mdoc ---

def escape(text):
    text = text.replace("\\", "\\e")
    return re.sub(r"[^\0-\x7f]", lambda m: f"\\[u{ord(m[0]):04X}]", text)


def argument(text):
    """One argument of a macro that is never taken for a macro itself."""
    return '"\\&' + escape(text).replace('"', "\\(dq") + '"'


def pieces(word, known):
    """(macro arguments or plain text, is it a macro) for each piece of a word without blanks outside of backticks."""
    token = re.compile(r"`([^`]*)`|([a-z][\w.-]*)\((\d)\)|(?<![\w$])(_?\w+)(?!\w)")
    at, out = 0, []
    for m in token.finditer(word):
        if m[4] is not None and (m[4] not in known or m[4] in WORDS):
            continue
        if m.start() > at:
            out.append((word[at:m.start()], False))
        if m[1] is not None:
            out.append((("Va " if m[1] in known else "Ql ") + argument(m[1]), True))
        elif m[2]:
            out.append((f"Xr {m[2]} {m[3]}", True))
        else:
            out.append((f"Va {m[4]}", True))
        at = m.end()
    if at < len(word):
        out.append((word[at:], False))
    return out


def mdoc_word(word, known):
    """A line of macros, or None for plain text."""
    parts = pieces(word, known)
    if not any(is_macro for _, is_macro in parts):
        return None
    line = ""
    for i, (part, is_macro) in enumerate(parts):
        if is_macro:
            line += (" Ns " if line and not line.endswith("( ") else "") + part
        elif i == 0 and part == "(":
            line += f"{parts[1][0].split(' ', 1)[0]} ( "
            parts[1] = (parts[1][0].split(" ", 1)[1], True)
        elif i == len(parts) - 1 and re.fullmatch(r"[.,;:)!?]+", part):
            line += " " + " ".join(part)
        else:
            line += (" Ns " if line else "") + "No " + argument(part)
    return "." + line


def mdoc_prose(prose, known):
    """Sentences begin lines of their own, as mdoc wants it."""
    out, plain = [], []

    def flush():
        if plain:
            for text in textwrap.wrap(escape(" ".join(plain)), 79, break_long_words=False, break_on_hyphens=False):
                out.append(("\\&" if text[0] in ".'" else "") + text)
            plain.clear()

    for word in re.findall(r"(?:`[^`]*`|[^\s`])+", prose):
        line = mdoc_word(word, known)
        if line:
            flush()
            out.append(line)
        else:
            plain.append(word)
            if re.search(r"[.!?]\)?$", word):
                flush()
    flush()
    return out


def of_what(row):
    """Type, unit and range in words."""
    if row.kind == "BOOL":
        return "yes or no"
    if row.kind == "TIME":
        words = [f"time, in {UNITS[row.unit]} without a unit"]
    elif row.kind in ("INT", "LONG"):
        words = ["number"]
    elif row.kind == "RAW":
        return "text, expanded when it is used"
    else:
        return "text" + (", not empty" if row.low else "")
    second = "s" if row.kind == "TIME" else ""
    if row.low:
        words.append(f"at least {row.low}{second}")
    if row.high:
        words.append(f"at most {row.high}{second}")
    return ", ".join(words)


def mdoc_entry(row, text, texts, legacy, known):
    out = [f".It Va {row.name}" if row.name[0] != "_" else f".It Ar service Ns Va {row.name}", "Default:"]
    if row.name in COMPUTED:
        out.append(COMPUTED[row.name] + ".")
    elif row.default == "":
        out.append("empty.")
    else:
        out.append(f".Ql {argument(row.default)} .")
    facts = of_what(row)
    out.append(facts[0].upper() + facts[1:] + (f"; since Postfix {text.since}." if text.since else "."))
    if row.status == "PENDING":
        out.append(".Em Not supported yet .")
    elif row.status == "INERT":
        out += ['.Em "\\&No effect here" :'] + mdoc_prose(row.note + ".", set())
    if row.name in legacy:
        out += [".Em Should not be set any more :"] + mdoc_prose(advice(legacy[row.name][1], known) + ".", known)
    out.append(".Pp")
    if text.like:
        like = texts[text.like]
        sentence = like.first_sentence
        whom = next(words for prefix, words in OF_WHOM.items() if row.name.startswith(prefix))
        if row.name.startswith("lmtp_"):
            sentence = re.sub(r"\bSMTP\b", "LMTP", sentence).replace("EHLO", "LHLO")
        out += mdoc_prose(f"As {text.like}, {whom}.", known) + mdoc_prose(sentence, known)
    else:
        out += mdoc_prose(text.prose, known)
        if text.examples:
            out += [".Bd -literal -offset indent", *("\\&" + escape(line) for line in text.examples), ".Ed"]
    return out


def advice(instead, known):
    if not instead:
        return "do not specify it"
    return instead if instead.startswith("do not") or instead not in known else f"specify {instead}"


def postconf_page(root, build_config):
    rows, legacy = read_rows(root, build_config)
    texts, problems = read_texts(root)
    problems += check_texts(rows, legacy, texts)
    if problems:
        raise Problem("\n".join(problems))
    known = set(rows)
    parameters = {name: row for name, row in legacy.items() if row[0] not in ("REMOVED", "LEAVING")}

    def entries(names):
        out = [".Bl -tag -width Ds"]
        for name in names:
            out += mdoc_entry(rows[name], texts[name], texts, parameters, known)
        return out + [".El"]

    old = [".Bl -tag -width Ds"]
    for name, (kind, instead) in sorted(parameters.items()):
        if name in rows:
            continue
        old.append(f".It Va {name}")
        old.append("Still has its effect." if kind == "RENAMED" else "Has no effect.")
        old += mdoc_prose("Instead: " + advice(instead, known) + ".", known)
    old.append(".El")
    sections = {
        "PARAMETERS": entries(sorted(name for name in rows if name[0] != "_")),
        "SERVICE PARAMETERS": entries(sorted(name for name in rows if name[0] == "_")),
        "OLD NAMES": old,
    }
    page = (root / "docs/manual/parameters/intro.mdoc").read_text()
    for name, lines in sections.items():
        marker = f".\\\" {name}\n"
        if page.count(marker) != 1:
            raise Problem(f"intro.mdoc: no place for {name}")
        page = page.replace(marker, "\n".join(lines) + "\n")
    return page


# --- checks of the other pages ---

def check_pages(root, known):
    problems = []
    suffixes = tuple(name for name in known if name[0] == "_")
    for path in sorted((root / "docs/manual").glob("*.[158]")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if not line.startswith(".") or line.startswith('.\\"'):
                continue
            for name in re.findall(r"\bVa (?:\( )?\"?(\w+)", line):
                if name not in known and not name.endswith(suffixes):
                    problems.append(f"{path.relative_to(root)}:{number}: {name} is no parameter")
    return problems


def check(root, build_config):
    rows, legacy = read_rows(root, build_config)
    texts, problems = read_texts(root)
    problems += check_texts(rows, legacy, texts)
    problems += check_pages(root, set(rows) | set(legacy))
    if problems:
        raise Problem("\n".join(problems))
    print(f"{len(rows)} parameters, {len(texts)} texts")


# --- HTML ---

def in_html(path):
    """(name, section) of the page in `path`."""
    name, section = path.name.rsplit(".", 1)
    return name, section


def document(title, body):
    return ("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
            f"<title>{html.escape(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n")


def page_body(path, pages, parameters):
    name, section = in_html(path)
    done = subprocess.run(["mandoc", "-T", "html", "-O", "fragment", str(path)], capture_output=True, text=True)
    if done.returncode > 2 or not done.stdout:
        raise Problem(f"mandoc {path}: {done.stderr}")
    is_postconf = (name, section) == ("postconf", "5")
    own = "" if is_postconf else "postconf.5.html"

    def reference(m):
        target = f"{m[1]}.{m[2]}"
        return f'<a class="Xr" href="{target}.html">{m[1]}({m[2]})</a>' if target in pages else m[0]

    def variable(m):
        return f'<a href="{own}#{m[1]}">{m[0]}</a>' if m[1] in parameters else m[0]

    def entry(m):
        anchor = m[2]
        return f'<dt id="{anchor}"><a class="permalink" href="#{anchor}">{m[1]}<var class="Va">{anchor}</var></a></dt>'

    body = done.stdout
    if is_postconf:
        body = re.sub(r'<dt(?: id="\w+")?>((?:<var class="Ar">\w+</var>)?)<var class="Va">(\w+)</var></dt>', entry, body)
    body = re.sub(r'(?<!">)(?<!</var>)<var class="Va">(\w+)</var>', variable, body)
    body = re.sub(r'<a class="Xr">([\w.-]+)\((\d)\)</a>', reference, body)
    return f'<p><a href="index.html">Angarium: the manual</a></p>\n{body}'


def one_line(path):
    m = re.search(r"^\.Nd (.*)$", path.read_text(), re.M)
    return m[1].replace("\\&", "") if m else ""


def write_html(paths, folder):
    pages = {path.name: path for path in paths}
    parameters = set(re.findall(r"^\.It (?:Ar service Ns )?Va (\w+)$", pages["postconf.5"].read_text(), re.M))
    for name, path in pages.items():
        title, section = in_html(path)
        (folder / f"{name}.html").write_text(document(f"{title}({section})", page_body(path, pages, parameters)))
    body = "<h1>Angarium: the manual</h1>\n"
    for section, heading in SECTIONS.items():
        body += f"<h2>{heading}</h2>\n<dl>\n"
        for name in sorted(name for name in pages if name.endswith("." + section)):
            title = name.rsplit(".", 1)[0]
            body += (f'<dt><a href="{name}.html">{title}({section})</a></dt>'
                     f"<dd>{html.escape(one_line(pages[name]))}</dd>\n")
        body += "</dl>\n"
    (folder / "index.html").write_text(document("Angarium: the manual", body))


def lint(paths):
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", *paths], capture_output=True, text=True)
    if done.stdout:
        raise Problem(done.stdout.rstrip())


def main():
    try:
        if sys.argv[1:2] == ["check"] and len(sys.argv) == 4:
            check(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
        elif sys.argv[1:2] == ["postconf"] and len(sys.argv) == 5:
            page = postconf_page(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
            pathlib.Path(sys.argv[4]).write_text(page)
        elif sys.argv[1:2] == ["html"] and len(sys.argv) > 4:
            write_html([pathlib.Path(p) for p in (sys.argv[2], *sys.argv[4:])], pathlib.Path(sys.argv[3]))
        elif sys.argv[1:2] == ["lint"] and len(sys.argv) > 2:
            lint(sys.argv[2:])
        else:
            sys.exit(__doc__)
    except Problem as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
