"""The form that the corpora of this folder share: "== name" begins a group, "parameter = value" lines at its front are its
settings, each line behind them is a row; "#" begins a comment."""
import re


def read_groups(path, make_group, make_row):
    """Objects make_group(name), whose lists `settings` and `rows` get (name, value) and make_row(group, line number, line)."""
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("== "):
            found.append(make_group(line[3:]))
        elif line and not line.startswith("#"):
            group = found[-1]
            setting = re.match(r"(\w+) =( .*)?$", line)
            if setting and not group.rows:
                group.settings.append((setting[1], (setting[2] or "").strip()))
            else:
                group.rows.append(make_row(group, number, line))
    return found
