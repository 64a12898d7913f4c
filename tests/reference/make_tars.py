#!/usr/bin/env python3
"""Makes tests/data/tars: tar archives of every format, each with what Python's tarfile finds in
it as NAME.json: names (their bytes, in hexadecimal), places and lengths of the regular files.

    python tests/reference/make_tars.py
"""

import io
import json
import tarfile
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "data"
OUT = DATA / "tars"
PHOTO = (DATA / "images" / "photo_1x1.png").read_bytes()
LONG = "folder/" * 20 + "x" * 60 + ".png"
LONGER = "y" * 300 + ".png"


def member(name, content=PHOTO, **fields):
    found = tarfile.TarInfo(name)
    found.size = len(content)
    for field, value in fields.items():
        setattr(found, field, value)
    return found, io.BytesIO(content)


def write(name, members, format, **options):
    with tarfile.open(OUT / name, "w", format=format, **options) as archive:
        for found, content in members:
            archive.addfile(found, content)
    expect(name)


def expect(name):
    """What tarfile reads, as JSON."""
    with tarfile.open(OUT / name, encoding="latin-1") as archive:
        files = [m for m in archive if m.isreg() and not m.issparse()]
    # Names in pax headers are UTF-8; any byte of another one is a character in Latin-1.
    encoding = {m: "utf-8" if "path" in m.pax_headers else "latin-1" for m in files}
    found = [[m.name.encode(encoding[m]).hex(), m.offset_data, m.size] for m in files]
    (OUT / f"{name}.json").write_text(json.dumps(found, indent=0) + "\n")


def block(name, size, kind=b"0", magic=b"ustar\x0000", tail=b"", signed=False):
    """A header by hand."""
    text = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size + b"0" * 11 + b"\0"
    text += b" " * 8 + kind + bytes(100) + magic
    text = (text + tail if len(tail) else text).ljust(512, b"\0")
    total = sum(byte - 256 if signed and byte > 127 else byte for byte in text)
    return text[:148] + b"%06o\0 " % total + text[156:]


def octal(number):
    return b"%011o\0" % number


def record(key, value):
    """A record of a pax header, which begins with its own length."""
    text = f" {key}={value}\n".encode()
    length = next(n for n in range(len(text), 999) if len(str(n)) + len(text) == n)
    return str(length).encode() + text


def padded(content):
    return content + bytes(-len(content) % 512)


def main():
    OUT.mkdir(exist_ok=True)
    for old in OUT.iterdir():
        old.unlink()
    plain = ["a.png", "b/c.d.png", "b/c.cls", "./e.png", "notes.txt"]
    contents = {"b/c.cls": b"7\n", "notes.txt": b"x" * 1500}
    files = [member(name, contents.get(name, PHOTO)) for name in plain]
    folder = member("b", b"", type=tarfile.DIRTYPE)
    links = [
        member("hard.png", b"", type=tarfile.LNKTYPE, linkname="a.png"),
        member("soft.png", b"", type=tarfile.SYMTYPE, linkname="a.png"),
        member("pipe.png", b"", type=tarfile.FIFOTYPE),
    ]

    def all_of(names):
        for _, content in files:
            content.seek(0)
        return [folder, *files, *links, *(member(name) for name in names), member("last.png")]

    write("ustar.tar", all_of([LONG]), tarfile.USTAR_FORMAT)
    write("gnu.tar", all_of([LONG, LONGER]), tarfile.GNU_FORMAT)
    odd = ["line\nbreak.png", "tab\t.png", "h\u00e9.png", "=.png", LONG, LONGER]
    write("pax.tar", all_of(odd), tarfile.PAX_FORMAT, pax_headers={"comment": "of all"})
    # Names that are not UTF-8.
    latin = {"encoding": "latin-1"}
    write("latin.tar", all_of(["h\u00e9.png", "\u00e9" * 150 + ".png"]), tarfile.GNU_FORMAT, **latin)

    photo = padded(PHOTO)
    length = len(PHOTO)
    end = bytes(1024)
    # Of 1979: neither a magic number nor types; a folder is a name with a slash.
    old = [
        block(b"old/", octal(0), b"\0", b""),
        block(b"old/a.png", octal(length), b"\0", b"") + photo,
        block(b"b.png", b"%6o \0    " % length, b"\0", b"") + photo,
    ]
    (OUT / "v7.tar").write_bytes(b"".join(old) + end)
    # Lengths in binary, in a pax header alone, and a sum of signed bytes.
    binary = b"\x80" + length.to_bytes(11, "big")
    records = record("size", length)
    numbers = [
        block(b"binary.png", binary) + photo,
        block(b"x", octal(len(records)), b"x") + padded(records),
        block(b"pax.png", octal(0)) + photo,
        block(b"h\xe9.png", octal(length), signed=True) + photo,
        block(b"contiguous.png", octal(length), b"7") + photo,
        # An unknown type has content, too.
        block(b"unknown.png", octal(length), b"Z") + photo,
        block(b"last.png", octal(length)) + photo,
    ]
    (OUT / "numbers.tar").write_bytes(b"".join(numbers) + end)
    # Sparse files of both kinds: with more holes than the header has room for, and by pax.
    holes = b"".join(octal(n * 4096) + octal(1) for n in range(4))
    more = b"".join(octal(n * 4096) + octal(1) for n in range(4, 6)).ljust(504, b"\0")
    tail = bytes(386 - 265) + holes + b"\1" + octal(20481)
    gnu = block(b"holes.png", octal(6), b"S", b"ustar  \0", tail)
    fields = {"major": 1, "minor": 0, "name": "pax.png", "realsize": 512}
    records = b"".join(record(f"GNU.sparse.{key}", value) for key, value in fields.items())
    sparse = [
        gnu + more + bytes(8) + padded(b"123456"),
        block(b"x", octal(len(records)), b"x") + padded(records),
        block(b"GNUSparseFile.0/pax.png", octal(512)) + b"0\n".ljust(512, b"\0"),
        block(b"last.png", octal(length)) + photo,
    ]
    (OUT / "sparse.tar").write_bytes(b"".join(sparse) + end)
    # With a name twice, and no mark of the end.
    twice = [block(b"a.png", octal(length)) + photo, block(b"b.png", octal(length)) + photo]
    (OUT / "twice.tar").write_bytes(b"".join(twice + twice[:1]))
    # Two archives, one after the other.
    (OUT / "joined.tar").write_bytes((b"".join(twice) + end) * 2)
    for name in ["v7", "numbers", "sparse", "twice", "joined"]:
        expect(f"{name}.tar")
    # As WebDataset stores samples.
    samples = []
    for number, (kind, text) in enumerate(
        [
            ("cls", "3"),
            ("json", '{"label": 4, "caption": "x"}'),
            ("json", '{"class_id": 5}'),
            ("cls", "6\n"),
        ]
    ):
        key = f"set/{number:06d}"
        samples.append(member(f"{key}.{kind}", text.encode()))
        if number == 3:
            samples.append(member(f"{key}.json", b'{"label": 9}'))
        samples.append(member(f"{key}.png"))
    write("samples.tar", samples, tarfile.GNU_FORMAT)


if __name__ == "__main__":
    main()
