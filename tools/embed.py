#!/usr/bin/env python3
"""Write files into a C source as strings: embed.py OUTPUT HEADER NAME=FILE...

Each becomes `const struct str NAME`; HEADER declares them."""
import pathlib
import sys

BYTES_A_LINE = 20


def main():
    output, header, *parts = sys.argv[1:]
    text = f"/* Made by tools/embed.py. */\n#include \"{header}\"\n"
    for part in parts:
        name, path = part.split("=", 1)
        data = pathlib.Path(path).read_bytes()
        rows = (data[i:i + BYTES_A_LINE] for i in range(0, len(data), BYTES_A_LINE))
        body = "".join("    " + " ".join(f"{byte}," for byte in row) + "\n" for row in rows)
        text += (f"static const unsigned char bytes_of_{name}[] = {{\n{body}    0\n}};\n"
                 f"const struct str {name} = {{ (const char *)bytes_of_{name}, {len(data)} }};\n")
    pathlib.Path(output).write_text(text)


main()
