"""Pickles for tests/it/cluster.rs, by Python's own picklers.

    python3 tests/reference/make_clusters.py tests/data/clusters

Writes good/*.bin, each of which denotes the rows of rows.json, and bad/*.bin, none of
which a reader of cluster files may take. Needs nothing but Python.
"""

import collections
import io
import json
import pickle
import pickletools
import struct
import sys
from pathlib import Path

ROWS = [
    ("cat.jpg", 281, [1, 0, 1, 1]),
    ("animals/dog.jpg", 0, [0, 0, 0, 1]),
    ("with space\tand\ntab \\ back\\u0041slash.png", 65536, [1, 1, 1, 1]),
    ("Ångström/狼/🐺.jpg", 2**31 - 1, [0, 1, 0, 0]),
    ("l" * 300 + ".jpg", 255, [1, 0, 1, 1]),
    ("cat.jpg", 256, [0, 0, 0, 1]),
]


def by_python(value, protocol):
    """The pickler that is written in Python; it batches and memoises by itself."""
    file = io.BytesIO()
    pickle._Pickler(file, protocol).dump(value)
    return file.getvalue()


def good():
    for protocol in range(5):
        yield f"c_protocol{protocol}", pickle.dumps(ROWS, protocol)
        yield f"python_protocol{protocol}", by_python(ROWS, protocol)
        # Nothing memoised, as for a file that is to be small.
        yield f"optimized_protocol{protocol}", pickletools.optimize(pickle.dumps(ROWS, protocol))
        # One object for equal texts and lists, another for the rest.
        texts, lists = {}, {}
        shared = [
            (texts.setdefault(path, path), number, lists.setdefault(tuple(bits), bits))
            for path, number, bits in ROWS
        ]
        yield f"shared_protocol{protocol}", pickle.dumps(shared, protocol)

    def text(path):
        encoded = path.encode()
        return b"\x8d" + struct.pack("<Q", len(encoded)) + encoded

    def row(number, of):
        path, label, bits = of
        # Every form of a whole number, and both ways to fill a list and a tuple.
        forms = [b"I%d\n", b"L%dL\n"]
        label = forms[number % 2] % label
        if number % 3 == 0:
            long = ROWS[number][1].to_bytes(8, "little")
            label = [b"\x8a\x08" + long, b"\x8b" + struct.pack("<I", 8) + long][number % 2]
        bits = [b"\x8a\x00" if bit == 0 else b"\x8a\x01\x01" for bit in bits]
        if number % 2:
            return b"(" + text(path) + label + b"(" + b"".join(bits) + b"lt"
        return text(path) + label + b"]" + b"".join(bit + b"a" for bit in bits) + b"\x87"

    rows = b"".join(row(number, of) for number, of in enumerate(ROWS))
    yield "by_hand", b"\x80\x04(" + rows + b"l."
    # POP, POP_MARK and DUP leave nothing behind.
    yield "detours", b"\x80\x02K\x07200(K\x01K\x021(0(" + rows + b"l."


def python2():
    """What Python 2's cPickle writes for paths of bytes; Python 3 loads them as texts."""
    yield "python2_protocol0", b"(lp1\n(S'it\\'s \\\\ a\\x20\"cat\"\\n'\np2\nI3\n(lp3\nI1\naI0\natp4\na."
    yield "python2_protocol2", b'\x80\x02]q\x01U\x0fit\'s \\ a "cat"\nq\x02K\x03]q\x03(K\x01K\x00e\x87q\x04a.'


def bad():
    plain = pickle.dumps(ROWS, 4)
    yield "protocol5", pickle.dumps(ROWS, 5)
    yield "empty_file", b""
    yield "text_file", b"This is not a pickle\n"
    yield "empty_list", pickle.dumps([], 4)
    yield "none", pickle.dumps(None, 4)
    yield "number", pickle.dumps(3, 4)
    yield "text", pickle.dumps("cat.jpg", 4)
    yield "dictionary", pickle.dumps({"cat.jpg": (1, [0, 1])}, 4)
    yield "set", pickle.dumps({1, 2}, 4)
    yield "set_by_global", pickle.dumps({1, 2}, 2)
    yield "tuple_of_rows", pickle.dumps(tuple(ROWS), 4)
    yield "three_rows_as_tuple", pickle.dumps(tuple(ROWS[:3]), 4)
    yield "row_as_list", pickle.dumps([list(row) for row in ROWS], 4)
    yield "row_of_two", pickle.dumps([row[:2] for row in ROWS], 4)
    yield "row_of_four", pickle.dumps([(*row, 1) for row in ROWS], 4)
    yield "named_tuple_by_global", pickle.dumps([collections.OrderedDict(a=1)], 4)
    yield "features_as_tuple", pickle.dumps([("a", 1, (0, 1, 1))], 4)
    yield "features_as_bytes", pickle.dumps([("a", 1, b"\0\1")], 4)
    yield "features_as_bytes_2", pickle.dumps([("a", 1, b"\0\1")], 2)
    yield "path_as_bytes", pickle.dumps([(b"a", 1, [0, 1])], 4)
    yield "path_as_number", pickle.dumps([(1, 1, [0, 1])], 4)
    yield "class_as_text", pickle.dumps([("a", "cat", [0, 1])], 4)
    yield "class_as_float", pickle.dumps([("a", 1.0, [0, 1])], 4)
    yield "class_negative", pickle.dumps([("a", -1, [0, 1])], 4)
    yield "class_negative_0", pickle.dumps([("a", -1, [0, 1])], 0)
    yield "class_large", pickle.dumps([("a", 2**31, [0, 1])], 4)
    yield "class_larger", pickle.dumps([("a", 2**64 + 1, [0, 1])], 4)
    yield "class_larger_0", pickle.dumps([("a", 2**64 + 1, [0, 1])], 0)
    yield "class_very_large", pickle.dumps([("a", 1 << 4000, [0, 1])], 4)
    yield "class_true", pickle.dumps([("a", True, [0, 1])], 4)
    for protocol in (0, 2):
        yield f"features_truth_{protocol}", pickle.dumps([("a", 1, [False, True])], protocol)
        yield f"features_float_{protocol}", pickle.dumps([("a", 1, [0.0, 1.0])], protocol)
    yield "feature_two", pickle.dumps([("a", 1, [0, 2])], 4)
    yield "feature_negative", pickle.dumps([("a", 1, [0, -1])], 4)
    yield "feature_long", pickle.dumps([("a", 1, [0, 1 << 64])], 4)
    yield "features_28", pickle.dumps([("a", 1, [0, 1] * 14)], 4)
    yield "features_none", pickle.dumps([("a", 1, [])], 4)
    yield "features_nested", pickle.dumps([("a", 1, [[0], [1]])], 4)
    yield "lengths_differ", pickle.dumps([("a", 1, [0, 1]), ("b", 1, [0])], 4)
    yield "lengths_differ_2", pickle.dumps([("a", 1, [0]), ("b", 1, [0, 1])], 4)
    yield "surrogate", pickle.dumps([("\udcff", 1, [0, 1])], 4)
    yield "surrogate_0", pickle.dumps([("\udcff", 1, [0, 1])], 0)
    cyclic = [("a", 1, [0, 1])]
    cyclic.append(cyclic)
    for protocol in (0, 1, 2, 4):
        yield f"cyclic_{protocol}", pickle.dumps(cyclic, protocol)
    features = [0, 1]
    features.append(features)
    yield "cyclic_features", pickle.dumps([("a", 1, features)], 4)
    inner = []
    inner.append(("a", 1, inner))
    yield "cyclic_row", pickle.dumps(inner, 4)
    yield "reduce", b"cos\nsystem\n(Vtouch owned\ntR."
    yield "reduce_and_pop", plain[:2] + b"cos\nsystem\nU\x01a\x85R0" + plain[11:]
    yield "global_and_pop", b"cos\nsystem\n0" + pickle.dumps(ROWS, 0)
    yield "stack_global", b"\x80\x04\x8c\x02os\x8c\x06system\x93."
    yield "inst", b"(ios\nsystem\n."
    yield "persistent", b"Pid\n."
    yield "extension", b"\x80\x02\x82\x01."
    yield "trailing_bytes", plain + b"\n"
    yield "two_pickles", plain + plain
    yield "truncated", plain[:-1]
    yield "truncated_text", plain[:25]
    yield "long_frame", b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + plain[11:]
    yield "nested_frame", plain[:11] + b"\x95" + struct.pack("<Q", 4) + plain[11:]
    yield "text_beyond_end", b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"a."
    yield "text_negative", b"T\xff\xff\xff\xffa."
    yield "long_beyond_end", b"\x8b" + struct.pack("<I", 1 << 31) + b"\x01."
    yield "no_such_memo", b"\x80\x04]h\x05a."
    yield "memo_negative", b"]p-1\n."
    yield "append_to_number", b"K\x01K\x02a."
    yield "append_to_tuple", b"K\x01K\x02K\x03\x87K\x02a."
    yield "no_mark", b"]K\x01e."
    yield "nothing", b"."
    yield "pop_nothing", b"0."
    yield "below_mark", b"](K\x01(aee."
    yield "leftover", b"K\x01" + pickle.dumps(ROWS, 0)
    yield "leftover_mark", b"](."
    yield "not_utf8", b"\x80\x04]X\x02\0\0\0\xff\xfeK\x01](K\0K\x01e\x87a."
    yield "python2_not_ascii", b"]U\x02\xc3\xa9K\x01](K\0K\x01e\x87a."
    yield "number_spelt_wrong", b"](Va\nI1x\n](I0\nI1\netae."
    yield "unterminated_line", b"](Va"
    yield "escape_cut", b"](V\\u00\nI1\n](I0\netae."


def main(folder):
    for kind, files in (("good", good()), ("python2", python2()), ("bad", bad())):
        target = folder / kind
        target.mkdir(parents=True, exist_ok=True)
        for name, data in files:
            (target / f"{name}.bin").write_bytes(data)
            if kind == "good":
                assert pickle.loads(data) == ROWS, name
            elif kind == "python2":
                assert pickle.loads(data) == [("it's \\ a \"cat\"\n", 3, [1, 0])], name
    (folder / "rows.json").write_text(json.dumps(ROWS, indent=1, ensure_ascii=False) + "\n")


main(Path(sys.argv[1]))
