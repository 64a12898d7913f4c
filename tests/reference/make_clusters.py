"""Writes tests/data/clusters: cluster files by Python's own picklers.

    python3 tests/reference/make_clusters.py tests/data/clusters

Each file of good/ denotes the rows of rows.json; each file of bad/ is to be refused. Needs only
Python.
"""

import json
import pickle
import pickletools
import struct
import sys
from pathlib import Path

ROWS = [
    ("cat.jpg", 281, [1, 0, 1, 1]),
    ("animals/dog.jpg", 0, [0, 0, 0, 1]),
    ("with space\tand\ntab \\ back\\slash.png", 65536, [1, 1, 1, 1]),
    ("Ångström/狼/🐺.jpg", 2**31 - 1, [0, 1, 0, 0]),
    ("l" * 300 + ".jpg", 255, [1, 0, 1, 1]),
    ("cat.jpg", 256, [0, 0, 0, 1]),
]


def good():
    for protocol in range(6):
        plain = pickle.dumps(ROWS, protocol)
        yield f"protocol{protocol}", plain
        # Nothing memoised.
        yield f"optimized_protocol{protocol}", pickletools.optimize(plain)
    texts = {}
    shared = [(texts.setdefault(path, path), number, bits) for path, number, bits in ROWS]
    yield "shared_texts", pickle.dumps(shared)


def bad():
    def one(path="a", number=1, bits=(0, 1)):
        return pickle.dumps([(path, number, list(bits))])

    plain = pickle.dumps(ROWS, 4)
    bits = [0, 1]
    cyclic = [("a", 1, bits)]
    cyclic.append(cyclic)
    yield "empty_file", b""
    yield "empty_list", pickle.dumps([])
    yield "none", pickle.dumps(None)
    yield "dictionary", pickle.dumps({"cat.jpg": (1, [0, 1])})
    # As TorchPRISM writes it.
    yield "zip_object", pickle.dumps(zip(["a"], [1], [[0, 1]]))
    yield "row_of_two", pickle.dumps([row[:2] for row in ROWS])
    yield "features_as_bytes", pickle.dumps([("a", 1, b"\0\1")])
    yield "path_as_bytes", one(path=b"a")
    yield "class_as_text", one(number="cat")
    yield "class_negative", one(number=-1)
    yield "class_large", one(number=2**31)
    yield "class_larger", one(number=2**64 + 1)
    yield "class_true", one(number=True)
    yield "features_float", one(bits=[0.0, 1.0])
    yield "feature_two", one(bits=[0, 2])
    yield "features_28", one(bits=[0, 1] * 14)
    yield "features_none", one(bits=[])
    yield "lengths_differ", pickle.dumps([("a", 1, [0, 1]), ("b", 1, [0])])
    yield "shared_lists", pickle.dumps([("a", 1, bits), ("b", 2, bits)])
    yield "cyclic_2", pickle.dumps(cyclic, 2)
    yield "reduce", b"cos\nsystem\n(Vtouch owned\ntR."
    yield "truncated", plain[:-1]
    yield "text_beyond_end", b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"a."
    yield "not_utf8", b"\x80\x04]X\x02\0\0\0\xff\xfeK\x01](K\0K\x01e\x87a."


def main(folder):
    for kind, files in (("good", good()), ("bad", bad())):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name, data in files:
            (folder / kind / f"{name}.bin").write_bytes(data)
            assert kind == "bad" or pickle.loads(data) == ROWS, name
    (folder / "rows.json").write_text(json.dumps(ROWS, indent=1, ensure_ascii=False) + "\n")


main(Path(sys.argv[1]))
