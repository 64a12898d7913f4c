"""Every option of the command line is a keyword with the same name and default."""

import inspect
import re
import subprocess
import unittest

import numpy as np
from common import ROOT

import prism_cnn
from prism_cnn import explaining, program

# Not keywords: the images are an argument.
ARGUMENTS = {"input"}
# Positional in Python, and always given.
GIVEN = {"model"}


def declared(command="prism"):
    """The options of a command by its page of options: name -> (whether it takes a value, default or None)."""
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    page = page.split(f"## `{command}`", 1)[1].split("###### **Options:**", 1)[1].split("\n## ")[0]
    options = {}
    for entry in re.split(r"^\* ", page, flags=re.M)[1:]:
        name = re.match(r"(?:`-.`, )?`--([a-z0-9-]+)", entry).group(1)
        default = re.search(r"^  Default value: `(.*)`$", entry, flags=re.M)
        takes = re.match(r"(?:`-.`, )?`--[a-z0-9-]+ <", entry) is not None
        options[name] = takes, default.group(1) if default else None
    return options


class Options(unittest.TestCase):
    def test_page_has_what_the_program_has(self):
        said = subprocess.run([program.find(), "--help"], stdout=subprocess.PIPE, check=True).stdout.decode()
        names = set(re.findall(r"^\s+(?:-., )?--([a-z0-9-]+)", said, flags=re.M)) - {"help", "version"}
        self.assertEqual(names, set(declared()))
        self.assertGreater(len(names), 50)

    def test_keywords_are_the_options(self):
        keywords = inspect.signature(prism_cnn.explain).parameters
        wanted = {name.replace("-", "_") for name in set(declared()) - ARGUMENTS}
        self.assertEqual(wanted, set(keywords) - {"images"})

    def test_keywords_of_layers(self):
        keywords = inspect.signature(prism_cnn.layers).parameters
        self.assertEqual({name.replace("-", "_") for name in declared("prism layers")}, set(keywords))
        for name, keyword in keywords.items():
            if name not in GIVEN:
                self.assertEqual(keyword.default, explaining.DEFAULTS[name], name)
        said = subprocess.run([program.find(), "layers", "--help"], stdout=subprocess.PIPE, check=True).stdout.decode()
        names = set(re.findall(r"^\s+(?:-., )?--([a-z0-9-]+)", said, flags=re.M)) - {"help", "version"}
        self.assertEqual(names, set(declared("prism layers")))

    def test_defaults_are_those_of_the_options(self):
        other = {}
        for name, (takes, default) in declared().items():
            name = name.replace("-", "_")
            if name in ARGUMENTS | GIVEN:
                continue
            ours = explaining.DEFAULTS[name]
            wanted = (default if takes else False) if default != "none" else None
            if name == "cluster":  # with and without a value
                wanted = False
            if (ours if wanted is None or wanted is False else str(ours)) != wanted:
                other[name] = ours
        self.assertEqual(set(other), set(explaining.OTHER_DEFAULTS), other)

    def test_words(self):
        words = explaining.words_of(
            {
                "top": 5,
                "hooks": "auto",
                "bgr": True,
                "square": np.bool_(False),
                "per_image": np.bool_(True),
                "image_size": (200, 100),
                "mean": [-0.5, 0.4, 0.3],
                "cluster": True,
                "save_basis": None,
                "arrays": ["maps", "features"],
                "figures": "none",
                "seed": 0,
            }
        )
        self.assertEqual(
            words,
            [
                "--top=5",
                "--bgr",
                "--per-image",
                "--image-size=200x100",
                "--mean=-0.5,0.4,0.3",
                "--cluster",
                "--arrays=maps,features",
                "--figures=none",
            ],
        )
