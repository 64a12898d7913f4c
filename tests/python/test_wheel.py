"""What scripts/wheel.py says of the wheel."""

import importlib.util
import re
import shutil
import tempfile
import unittest
import zipfile
from pathlib import Path

from common import ROOT

SCRIPT = ROOT / "scripts" / "wheel.py"
PARTS = ("prism/LICENSE", "gcc/GPL-3.txt", "libtorch/LICENSE", "libtorch/third_party/a/LICENSE", "onemkl/LICENSE.txt")


@unittest.skipUnless(SCRIPT.exists(), "needs a clone")
class Wheel(unittest.TestCase):
    def setUp(self):
        spec = importlib.util.spec_from_file_location("wheel", SCRIPT)
        self.wheel = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.wheel)
        self.tree = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.tree)
        for name in ("bin/prism", "lib/libgomp.so.1", *(f"licences/{part}" for part in PARTS)):
            (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
            (self.tree / name).write_text(name)
        (self.tree / "licences" / "crates.txt").write_text(
            "a 1\n  licence: MIT/Apache-2.0\nb 1\n  licence: MIT AND Zlib\nc 1\n  licence: MIT OR Apache-2.0\n"
        )

    def made(self):
        return self.wheel.contents(self.tree, "i", "1", "py3-none-any", (2, 31))

    def test_every_licence_is_named(self):
        files = self.made()
        said = files["i/METADATA"][0].decode()
        named = re.findall("^License-File: (.*)$", said, re.M)
        self.assertEqual(named, sorted([*PARTS, "crates.txt"]))
        for name in named:
            self.assertEqual(files[f"i/licenses/{name}"][0], self.tree / "licences" / name)
        expression = re.search("^License-Expression: (.*)$", said, re.M).group(1)
        self.assertEqual(
            expression,
            "MIT AND (MIT OR Apache-2.0) AND BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1 "
            "AND LicenseRef-Intel-Simplified-Software-License AND LicenseRef-bundled-with-libtorch AND Zlib",
        )

    def test_unknown_licences(self):
        (self.tree / "licences" / "new").mkdir()
        with self.assertRaisesRegex(SystemExit, "new is a licence that LICENCES does not know"):
            self.made()

    def test_the_archive(self):
        path = self.tree / "a.whl"
        self.wheel.write(path, self.made(), "i")
        with zipfile.ZipFile(path) as archive:
            self.assertIsNone(archive.testzip())
            record = archive.read("i/RECORD").decode().splitlines()
            self.assertEqual([line.split(",")[0] for line in record], archive.namelist())
            self.assertTrue(archive.getinfo("prism_cnn/program/bin/prism").external_attr >> 16 & 0o111)
