"""Images of every kind give what the command line gives for their files."""

import contextlib
import gc
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import unittest
import warnings
import webbrowser
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
from common import SAMPLES, TINY, environment, needs_pillow, needs_torch, no_warnings

import prism_cnn
from prism_cnn import images as imagery
from prism_cnn import program


def pictures(count=3, side=48, seed=1):
    """Coloured noise `[N,H,W,3]` uint8: coarse, so that images differ."""
    cells = np.random.default_rng(seed).integers(0, 256, (count, side // 8, side // 8 + 1, 3), np.uint8)
    return cells.repeat(8, 1).repeat(8, 2)


def save_ppm(path, pixels):
    """Writes pixels as the simplest format of all, by itself."""
    height, width, _ = pixels.shape
    Path(path).write_bytes(b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes())


class Folder(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="prism test ü "))
        self.addCleanup(shutil.rmtree, self.folder)

    def command(self, *words):
        """Arrays of the command line itself."""
        arrays = self.folder / "command.npz"
        subprocess.run(
            [program.find(), "--quiet", "--model", TINY, "--figures", "none", "--save-arrays", arrays, *words],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        with np.load(arrays) as found:
            return dict(found)

    def same(self, result, arrays, rows=None):
        rows = slice(None) if rows is None else rows
        np.testing.assert_array_equal(result.input, arrays["input"][rows])
        np.testing.assert_allclose(result.logits, arrays["logits"][rows], atol=1e-5)
        np.testing.assert_allclose(result.maps, arrays["maps"][rows], atol=1e-4)
        np.testing.assert_allclose(result.features, arrays["features"][rows], atol=1e-3)


class Images(Folder):
    def setUp(self):
        super().setUp()
        self.pixels = pictures()
        self.paths = []
        for name, pixels in zip(("c a.ppm", "a ä.ppm", "@b.ppm"), self.pixels):
            self.paths.append(self.folder / name)
            save_ppm(self.paths[-1], pixels)
        # The program sorts by path: @b, a, c.
        self.arrays = self.command("--input", *self.paths)

    def test_paths_keep_their_order(self):
        with no_warnings():
            result = prism_cnn.explain(TINY, self.paths)
        self.assertEqual(result.files, [str(path) for path in self.paths])
        self.same(result, self.arrays, [2, 1, 0])
        self.assertEqual(result.classes.shape, (3, 3))
        np.testing.assert_array_equal(result.classes["id"][:, 0], result.logits.argmax(1))

    def test_relative_paths(self):
        here = os.getcwd()
        os.chdir(self.folder)
        try:
            result = prism_cnn.explain(
                str(TINY), ["c a.ppm", "@b.ppm"], output_dir="PRISM_tiny_resnet_scripted", json="run.json", per_image=True
            )
            page = result.report("page.html")
        finally:
            os.chdir(here)
        self.assertEqual(result.files, ["c a.ppm", "@b.ppm"])
        stem = "PRISM_tiny_resnet_scripted"
        self.assertEqual(result.figures, [str(self.folder / stem / f"{stem}.jpg")])
        self.assertTrue(Path(result.figures[0]).exists())
        self.assertTrue(Path(page.path).exists())
        self.assertIn("run.json", os.listdir(result.save(self.folder / "kept")))
        np.testing.assert_array_equal(result.input, self.arrays["input"][[2, 0]])

    def test_very_many_paths(self):
        """More than a command line takes go into a list."""
        strange = self.folder / "line\nbreak.ppm"
        os.link(self.paths[0], strange)
        longest, imagery.LONGEST_WORDS = imagery.LONGEST_WORDS, 20
        try:
            result = prism_cnn.explain(TINY, [*self.paths[1:], strange], figures="none")
            with self.assertRaisesRegex(prism_cnn.UsageError, r"images\[1\] is .*gone.ppm: no such file"):
                prism_cnn.explain(TINY, [self.paths[0], self.folder / "gone.ppm"])
        finally:
            imagery.LONGEST_WORDS = longest
        self.assertEqual(result.files, [str(path) for path in [*self.paths[1:], strange]])
        np.testing.assert_array_equal(result.input, self.arrays["input"][[1, 0, 2]])

    def test_folder_and_glob(self):
        for images in (self.folder, f"{self.folder}/*.ppm"):
            result = prism_cnn.explain(TINY, images, figures="none")
            self.assertEqual(result.files, sorted(map(str, self.paths)))
            self.same(result, self.arrays)
        result = prism_cnn.explain(TINY, [f"{self.folder}/a*.ppm", f"{self.folder}/[@c]*.ppm"], figures="none")
        self.assertEqual(result.files, [str(self.paths[place]) for place in (1, 2, 0)])
        self.same(result, self.arrays, [1, 0, 2])

    def test_lists_of_all_kinds_keep_their_order(self):
        """Each image by its brightness, which the order of names does not follow."""
        flat = [np.full((16, 16, 3), 20 * (place + 1), np.uint8) for place in range(9)]
        mean = np.float32([0.485, 0.456, 0.406])[:, None, None]
        std = np.float32([0.229, 0.224, 0.225])[:, None, None]
        (self.folder / "m").mkdir()
        for name, place in (("z.ppm", 1), ("a.ppm", 7), ("m/b.ppm", 4), ("m/c.ppm", 5), ("g2.ppm", 3), ("g1.ppm", 2)):
            save_ppm(self.folder / name, flat[place])
        save_ppm(self.folder / "in.ppm", flat[6])
        with tarfile.open(self.folder / "k.tar", "w") as archive:
            archive.add(self.folder / "in.ppm", "x/in.ppm")
        given = [
            flat[0],
            self.folder / "z.ppm",
            f"{self.folder}/g*.ppm",
            f"{self.folder}/m",
            self.folder / "k.tar",
            os.fsencode(self.folder / "a.ppm"),
            flat[8],
        ]
        result = prism_cnn.explain(TINY, given, figures="none")
        shown = (result.input * std + mean).mean((1, 2, 3)) * 255
        # A glob is sorted by path: g1 before g2.
        np.testing.assert_allclose(shown, [20, 40, 60, 80, 100, 120, 140, 160, 180], atol=0.01)
        names = [name.replace(f"{self.folder}/", "") for name in result.files]
        self.assertEqual(
            names,
            ["images[0]", "z.ppm", "g1.ppm", "g2.ppm", "m/b.ppm", "m/c.ppm", "k.tar/x/in.ppm", "a.ppm", "images[6]"],
        )

    def test_names_that_are_not_utf_8(self):
        paths = [os.fsencode(self.folder) + name for name in (b"/x\xff.ppm", b"/x\xfe.ppm")]
        for path, pixels in zip(paths, self.pixels):
            save_ppm(os.fsdecode(path), pixels)
        result = prism_cnn.explain(TINY, [self.paths[2], paths[0]], figures="none")
        np.testing.assert_array_equal(result.input, self.arrays["input"][[0, 2]])
        with self.assertRaisesRegex(prism_cnn.UsageError, "differ in bytes that are not UTF-8 alone.*rename one"):
            prism_cnn.explain(TINY, paths)

    def test_arrays(self):
        wanted = self.arrays["input"][[2, 1, 0]]
        for images in (self.pixels, list(self.pixels), self.pixels.astype(np.int64), self.pixels.transpose(0, 3, 1, 2)):
            with no_warnings():
                result = prism_cnn.explain(TINY, images, figures="none")
            self.assertEqual(result.files, ["images[0]", "images[1]", "images[2]"])
            np.testing.assert_array_equal(result.input, wanted)
        singles = prism_cnn.explain(TINY, [self.pixels[:1], self.pixels[1]], figures="none")
        np.testing.assert_array_equal(singles.input, wanted[:2])
        paths = prism_cnn.explain(TINY, np.array([str(path) for path in self.paths]), figures="none")
        np.testing.assert_array_equal(paths.input, wanted)
        one = prism_cnn.explain(TINY, self.pixels[1], figures="none")
        np.testing.assert_array_equal(one.input, wanted[1:2])

    def test_sizes_may_differ(self):
        other = pictures(1, 64)[0]
        save_ppm(self.folder / "other.ppm", other)
        result = prism_cnn.explain(TINY, [self.paths[0], other, self.pixels[1]], figures="none")
        wanted = self.command("--input", self.paths[0], self.folder / "other.ppm", self.paths[1])  # a, c, other
        np.testing.assert_array_equal(result.input, wanted["input"][[1, 2, 0]])
        self.assertEqual(result.files, [str(self.paths[0]), "images[1]", "images[2]"])

    def test_dark_images_among_others(self):
        dark = np.zeros_like(self.pixels[0])
        dark[0, 0] = 1
        for images in ([self.pixels[0], dark], [self.pixels[0].astype(np.uint16) * 257, dark.astype(np.uint16)]):
            result = prism_cnn.explain(TINY, images, figures="none")
            np.testing.assert_array_equal(result.input[0], self.arrays["input"][2])
            self.assertLess(result.input[1].max(), -1)

    def test_sixteen_bits_and_opacity(self):
        # 257 v of 16 bits is v of 8 bits, and so is a little less; what is transparent is white.
        deep = self.pixels.astype(np.uint16) * 257
        deep[deep > 0] -= 100
        np.testing.assert_array_equal(
            prism_cnn.explain(TINY, deep, figures="none").input, self.arrays["input"][[2, 1, 0]]
        )
        opaque = np.concatenate([self.pixels, np.full((*self.pixels.shape[:3], 1), 255, np.uint8)], 3)
        np.testing.assert_array_equal(
            prism_cnn.explain(TINY, opaque, figures="none").input, self.arrays["input"][[2, 1, 0]]
        )
        opaque[:, :, :24, 3] = 0
        white = self.pixels.copy()
        white[:, :, :24] = 255
        found, wanted = (prism_cnn.explain(TINY, images, figures="none").input for images in (opaque, white))
        np.testing.assert_array_equal(found, wanted)

    def test_normalised_arrays_are_taken_as_they_are(self):
        with no_warnings():
            result = prism_cnn.explain(TINY, self.arrays["input"].astype(np.float64))
        self.same(result, self.arrays)
        alone = prism_cnn.explain(TINY, list(self.arrays["input"]), figures="none")
        self.same(alone, self.arrays)

    @needs_torch
    def test_tensors(self):
        import torch

        with no_warnings():
            result = prism_cnn.explain(TINY, torch.from_numpy(self.arrays["input"]).requires_grad_())
        self.same(result, self.arrays)
        pixels = torch.from_numpy(self.pixels).permute(0, 3, 1, 2)
        one = prism_cnn.explain(TINY, pixels[1], figures="none")
        np.testing.assert_array_equal(one.input, self.arrays["input"][[1]])
        for tensor in (torch.empty(2, 3, 64, 64, device="meta"), torch.zeros(2, 3, 64, 64).to_sparse()):
            with self.assertRaisesRegex(prism_cnn.UsageError, r"images\[0\]: the tensor cannot be read"):
                prism_cnn.explain(TINY, [tensor])
        np.testing.assert_array_equal(
            prism_cnn.explain(TINY, pixels, figures="none").input, self.arrays["input"][[2, 1, 0]]
        )

    @needs_pillow
    def test_pictures(self):
        from PIL import Image

        shown = [Image.fromarray(pixels) for pixels in self.pixels]
        with no_warnings():
            result = prism_cnn.explain(TINY, shown, figures="none")
        np.testing.assert_array_equal(result.input, self.arrays["input"][[2, 1, 0]])
        grey = prism_cnn.explain(TINY, shown[0].convert("L"), figures="none")
        few = prism_cnn.explain(TINY, shown[0].convert("L").convert("P"), figures="none")
        np.testing.assert_array_equal(grey.input, few.input)
        shown[0].getexif()[0x0112] = 6
        with self.assertWarnsRegex(prism_cnn.PrismWarning, "exif_transpose"):
            turned = prism_cnn.explain(TINY, shown[0], figures="none")
        np.testing.assert_array_equal(turned.input, result.input[:1])
        with self.assertRaisesRegex(prism_cnn.UsageError, r"images\[0\] has the mode CMYK"):
            prism_cnn.explain(TINY, shown[0].convert("CMYK"))
        deep = np.arange(48 * 56, dtype=np.uint16).reshape(48, 56) * 20
        for mode, image in (
            ("I", Image.fromarray(deep.astype(np.int32))),
            ("F", Image.fromarray(deep.astype(np.float32))),
        ):
            self.assertEqual(image.mode, mode)
            with self.assertRaisesRegex(prism_cnn.UsageError, rf"mode {mode}; .*numpy.asarray\(image\)"):
                prism_cnn.explain(TINY, image)
        advised = prism_cnn.explain(
            TINY, [np.asarray(Image.fromarray(deep.astype(np.int32))).astype("uint16")], figures="none"
        )
        plain = prism_cnn.explain(TINY, Image.fromarray(deep), figures="none")
        np.testing.assert_array_equal(advised.input, plain.input)
        clear = shown[1].convert("L").convert("P").convert("PA")
        grey = prism_cnn.explain(TINY, [shown[1].convert("L"), clear], figures="none")
        np.testing.assert_array_equal(grey.input[0], grey.input[1])
        with open(self.paths[0], "rb") as file:
            closed = Image.open(file)
        closed.close()
        with self.assertRaisesRegex(prism_cnn.UsageError, r"images\[1\] cannot be read"):
            prism_cnn.explain(TINY, [shown[1], closed])

    def test_results(self):
        with no_warnings():
            result = prism_cnn.explain(
                TINY, self.pixels, saliency="gradcam", target=4, labels=[f"class {n}" for n in range(10)]
            )
        count, components, height, width = result.features.shape
        self.assertEqual((count, components), (3, 3))
        np.testing.assert_array_equal(result.components(3), result.features)
        self.assertEqual(result.components(5).shape, (3, 5, height, width))
        self.assertEqual(result.maps.shape, (3, 4, 224, 224))
        self.assertEqual(result.saliency.shape, (3, 1, height, width))
        self.assertEqual(result.probabilities.shape, (3, 10))
        self.assertAlmostEqual(float(result.variance_ratio.sum()), 1, places=4)
        self.assertIsNone(result.left_out)
        self.assertEqual(result.legend.ndim, 1)
        self.assertAlmostEqual(result.legend["share"].sum(), 1, places=6)
        self.assertEqual(result.legend["colour"].shape[1], 3)
        self.assertEqual(result.classes["name"][0, 0], f"class_{result.logits[0].argmax()}")
        # Of the components: their covariance is diagonal, and their variances are in the ratio that is said.
        rows = result.components(5).transpose(0, 2, 3, 1).reshape(-1, 5)
        variances = np.cov(rows.T)
        np.testing.assert_allclose(variances - np.diag(np.diag(variances)), 0, atol=1e-4 * variances.max())
        np.testing.assert_allclose(
            np.diag(variances) / variances[0, 0], result.variance_ratio[:5] / result.variance_ratio[0], rtol=1e-3
        )
        with self.assertRaisesRegex(prism_cnn.UsageError, r"components\(33\)"):
            result.components(33)
        self.assertIn("3 images", repr(result))
        self.assertIn("data:image/jpeg;base64,", result._repr_html_())
        page = result.report()
        self.assertIn('sandbox="allow-scripts', page._repr_html_())
        written = Path(result.save(self.folder / "kept"))
        self.assertLessEqual(
            {"run.json", "run.npz", Path(result.figures[0]).name}, {path.name for path in written.iterdir()}
        )
        subprocess.run(
            [program.find(), "report", written / "run.json", "-o", written / "page.html", "--quiet"], check=True
        )
        scratch = Path(result.figures[0]).parent
        del page, result
        self.assertFalse(scratch.exists())

    def test_files_are_written_where_they_are_asked_for(self):
        result = prism_cnn.explain(
            TINY,
            self.paths,
            output_dir=self.folder / "out",
            json=self.folder / "run.jsonl",
            save_arrays=self.folder / "run.safetensors",
            cluster=self.folder / "c.bin",
            format="png",
            array_type="u8",
        )
        self.assertEqual(result.figures, [str(self.folder / "out" / "PRISM_tiny_resnet_scripted.png")])
        self.assertTrue((self.folder / "c.bin").exists())
        np.testing.assert_allclose(result.maps, self.arrays["maps"][[2, 1, 0]], atol=0.5 / 255 + 1e-4)
        self.assertEqual(result.maps.dtype, np.float32)
        np.testing.assert_allclose(result.logits, self.arrays["logits"][[2, 1, 0]], atol=1e-5)
        self.assertEqual(len(result.classes), 3)

    def test_labels_by_number(self):
        labels = {number: f"class {number}" for number in reversed(range(10))}
        result = prism_cnn.explain(TINY, self.paths, labels=labels, figures="none")
        names = [f"class_{number}" for number in result.logits.argmax(1)]
        self.assertEqual(result.classes["name"][:, 0].tolist(), names)

    def test_what_is_shown_stays(self):
        result = prism_cnn.explain(TINY, self.paths)
        scratch, opened = Path(result.figures[0]).parent, []
        opens, webbrowser.open = webbrowser.open, opened.append
        try:
            with contextlib.redirect_stdout(io.StringIO()) as said:
                result.show()
            result.report().open()
        finally:
            webbrowser.open = opens
        del result
        self.assertFalse(scratch.exists())
        shown = [Path(unquote(urlparse(address).path)) for address in opened]
        self.assertEqual([path.suffix for path in shown], [".jpg", ".html"])
        self.assertEqual(said.getvalue().split("\n")[0], str(shown[0]))
        for path in shown:
            self.assertGreater(path.stat().st_size, 1000)
            shutil.rmtree(path.parent)
        result = prism_cnn.explain(TINY, self.paths, output_dir=self.folder)
        self.assertEqual(result._folder.kept(result.figures[0]), result.figures[0])

    def test_a_copy_of_the_process_removes_nothing(self):
        result = prism_cnn.explain(TINY, self.paths, figures="none")
        child = os.fork()
        if child == 0:
            result._folder.remove()
            os._exit(0)
        os.waitpid(child, 0)
        self.assertTrue(Path(result._folder.name).exists())

    def test_files_are_closed(self):
        result = prism_cnn.explain(TINY, self.paths, figures="none")
        result.cycle = result
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            read = result._arrays._read
            del result
            gc.collect()
        self.assertEqual((said, read.zip), ([], None))

    def test_messages_name_arrays_as_they_were_given(self):
        images = [self.pixels[0], self.pixels[1], np.zeros((1, 30000, 3), np.uint8)]
        with self.assertRaisesRegex(prism_cnn.PrismError, r"images\[2\]"):
            prism_cnn.explain(TINY, images, max_pixels=20000)

    def test_left_out(self):
        result = prism_cnn.explain(TINY, self.paths, inclusive=True, figures="none")
        self.assertEqual(result.left_out.dtype, bool)
        np.testing.assert_array_equal(result.maps.transpose(0, 2, 3, 1)[result.left_out], 0)

    def test_bad_images_are_left_out(self):
        bad = self.folder / "b bad.png"
        bad.write_bytes(b"no image")
        with self.assertWarnsRegex(prism_cnn.PrismWarning, "b bad.png"):
            result = prism_cnn.explain(TINY, [self.paths[0], bad, self.paths[1]], skip_bad_images=True, figures="none")
        self.assertEqual(result.files, [str(self.paths[0]), str(self.paths[1])])
        np.testing.assert_array_equal(result.input, self.arrays["input"][[2, 1]])

    def test_chosen_arrays(self):
        for figures in (None, False, "none"):
            result = prism_cnn.explain(TINY, self.paths, arrays=["maps"], figures=figures)
            self.assertEqual(result.figures, [])
        self.assertEqual(result.maps.shape, (3, 3, 224, 224))
        read, result._arrays._read = result._arrays._read, {"maps": None}
        self.assertTrue("maps" in result._arrays and "files" not in result._arrays)  # without reading it
        result._arrays._read = read
        with self.assertRaisesRegex(prism_cnn.PrismError, "the run saved no array logits: it has maps"):
            result.logits


class Refused(Folder):
    """Bad input: an exception with one line that says what to do."""

    def refused(self, pattern, *arguments, **keywords):
        with self.assertRaisesRegex(prism_cnn.UsageError, pattern) as caught:
            prism_cnn.explain(*arguments, **keywords)
        self.assertEqual(len(str(caught.exception).splitlines()), 1)
        self.assertLessEqual(len(str(caught.exception)), 300)
        self.assertEqual(caught.exception.status, 2)

    def test_images(self):
        pixels = pictures()
        unit = pixels / 255
        self.refused(r"from 0 to 1; photographs are bytes from 0 to 255: \(images \* 255\)", TINY, unit)
        self.refused("from 0 to 255; photographs are bytes: images.round", TINY, pixels.astype(float))
        self.refused(r"transpose\(0, 3, 1, 2\)", TINY, unit - 0.5)
        self.refused("bytes from 0 to 1, where 0 to 255", TINY, (unit > 0.5).astype(np.uint8))
        self.refused("int64 from -2 to", TINY, pixels.astype(np.int64) - 2)
        self.refused("uint16 from", TINY, pixels.astype(np.uint16))
        self.refused("the type bool is not that of pixels", TINY, pixels > 9)
        self.refused(r"the shape \[3,48\]", TINY, pixels[:, :, 0, 0])
        self.refused(r"the shape \[3,0,56,3\]", TINY, pixels[:, :0])
        self.refused(
            r"images\[0\] has the shape \[3,8,8\] and images\[1\] \[3,9,8\]",
            TINY,
            [np.ones((3, 8, 8)), np.ones((3, 9, 8))],
        )
        self.refused(r"images\[1\] is str, but others are normalised", TINY, [np.ones((3, 8, 8)), "a.jpg"])
        self.refused("the list is empty", TINY, [])
        self.refused("of the type int are not known", TINY, 3)
        self.refused(r"images\[0\] is a dict", TINY, [{}])
        self.refused("images are not known|is a NoneType", TINY, [None])
        self.refused("which is no path", TINY, "")
        self.refused("not finite", TINY, np.full((1, 3, 64, 64), np.nan))
        self.refused(r"images\[0\] has 2 photographs", TINY, [pixels[:2], pixels[2:]])
        self.refused(
            r"\[3,48,56\] is one image with its channels first, or 3 grey ones", TINY, pixels[0].transpose(2, 0, 1)
        )
        photo = SAMPLES / "cat.jpg"
        self.refused(
            r"images\[0\] and images\[2\] are both .*cat.jpg; give each image once",
            TINY,
            [photo, SAMPLES / "dog.jpg", photo],
        )

    def test_unnormalised_arrays_are_noticed(self):
        images = pictures().transpose(0, 3, 1, 2)
        for values in (images / 255, images.astype(np.float32)):
            with self.assertWarnsRegex(prism_cnn.PrismWarning, "do not look normalised") as caught:
                prism_cnn.explain(TINY, values, figures="none")
            self.assertEqual(caught.filename, __file__)

    def test_values(self):
        images = pictures()
        self.refused("there is no layer 'nowhere'", TINY, images, layer="nowhere")
        self.refused("--palette", TINY, images, palette="grey")
        self.refused("image_size 'big' is no size", TINY, images, image_size="big")
        self.refused("joint='auto'", TINY, images, joint="auto")
        self.refused("json='-'", TINY, images, json="-")
        self.refused("a model of the type int", 3, images)
        for labels in (5, {"cat", "dog"}, b"cat"):
            self.refused("labels is a (int|set|bytes)", TINY, images, labels=labels)
        for labels in ({"0": "cat"}, {1: "cat"}, {name: name for name in range(1, 11)}):
            self.refused("keys are not the integers 0 to K-1", TINY, images, labels=labels)
        with self.assertRaises(TypeError):
            prism_cnn.explain(TINY, images, colour="red")
        with self.assertRaisesRegex(prism_cnn.PrismError, "nowhere.pt"):
            prism_cnn.explain("./nowhere.pt", images)
        with self.assertRaisesRegex(prism_cnn.PrismError, "nowhere.jpg: no such file"):
            prism_cnn.explain(TINY, "nowhere.jpg")

    def test_programs(self):
        images = pictures()
        foreign = self.folder / "prism"
        foreign.write_text("#!/bin/sh\necho 'prism, another program 3.1'\n")
        foreign.chmod(0o755)
        text = self.folder / "text"
        text.write_bytes(b"\x7fELF" + bytes(60))
        text.chmod(0o755)
        fails = self.folder / "fails"
        fails.write_text(
            '#!/bin/sh\n[ "$1" = --version ] && echo prism '
            + prism_cnn.__version__
            + " && exit\necho 'no library' >&2\nexit 127\n"
        )
        fails.chmod(0o755)
        plain = self.folder / "plain"
        plain.write_text("no program")
        for program_, said in [
            (foreign, "is another program: it says 'prism, another program 3.1'"),
            (self.folder / "nothing", "No such file"),
            (text, "Exec format error"),
            (plain, "Permission denied"),
            (fails, "ended with status 127: no library"),
        ]:
            with environment(PRISM_PROGRAM=str(program_)), self.assertRaisesRegex(prism_cnn.PrismError, said):
                prism_cnn.explain(TINY, images)

    def test_the_script_of_the_package(self):
        """Named by PRISM_PROGRAM it does not start itself, and a name alone is looked up as a shell does."""
        script = self.folder / "prism"
        start = f'[ "$BEGUN" ] && echo itself && exit\nexport BEGUN=1\nexec {sys.executable} -m prism_cnn "$@"\n'
        script.write_text("#!/bin/sh\n" + start)
        script.chmod(0o755)
        # Here the package has no program of its own, so the script has nothing to start.
        paths = [str(Path(prism_cnn.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        with environment(PRISM_PROGRAM=str(script), PYTHONPATH=os.pathsep.join(paths)):
            if program.PACKED.exists():
                self.assertEqual(len(prism_cnn.explain(TINY, pictures(), figures="none").maps), 3)
            else:
                with self.assertRaisesRegex(prism_cnn.PrismError, "is another program: it says 'prism: error: the prog"):
                    prism_cnn.explain(TINY, pictures())
        script.write_text(f'#!/bin/sh\necho "prism {prism_cnn.__version__}"\n')
        with environment(PRISM_PROGRAM="prism", PATH=f"{self.folder}:{os.environ['PATH']}"):
            self.assertEqual(program.find(), str(script))
        with environment(PRISM_PROGRAM="prism", PATH="/nowhere"):
            with self.assertRaisesRegex(prism_cnn.PrismError, "PRISM_PROGRAM=prism cannot be started"):
                program.find()

    def test_missing_program(self):
        packed, program.PACKED = program.PACKED, self.folder / "gone"
        try:
            with (
                environment(PRISM_PROGRAM=None),
                self.assertRaisesRegex(prism_cnn.PrismError, "the program is not in this package"),
            ):
                prism_cnn.explain(TINY, pictures())
        finally:
            program.PACKED = packed

    def test_no_temporary_folder(self):
        before = tempfile.tempdir
        tempfile.tempdir = str(self.folder / "gone")
        try:
            with self.assertRaisesRegex(prism_cnn.PrismError, "no temporary file can be written .*TMPDIR"):
                prism_cnn.explain(TINY, pictures())
        finally:
            tempfile.tempdir = before

    def test_nothing_is_left_after_a_failure(self):
        before = tempfile.tempdir
        tempfile.tempdir = str(self.folder)
        try:
            with self.assertRaises(prism_cnn.PrismError):
                prism_cnn.explain(TINY, pictures(), layer="nowhere")
        finally:
            tempfile.tempdir = before
        self.assertEqual(list(self.folder.iterdir()), [])


class Running(Folder):
    def test_variables_of_a_launcher_are_not_the_programs(self):
        for variables in (
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29999"},
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": None, "MASTER_PORT": None},
        ):
            with environment(**variables):
                self.assertEqual(len(prism_cnn.explain(TINY, pictures(), figures="none", quiet=True).maps), 3)
                self.assertIn("layer2", prism_cnn.layers(TINY))

    def test_signals_end_the_program(self):
        for number, said in ((signal.SIGINT, b"KeyboardInterrupt"), (signal.SIGTERM, b"")):
            # A list that never ends: the program waits for it.
            fifo = self.folder / f"list {number}"
            os.mkfifo(fifo)
            script = f"import prism_cnn; prism_cnn.explain({str(TINY)!r}, {'@' + str(fifo)!r})"
            process = subprocess.Popen(
                [sys.executable, "-c", script],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "TMPDIR": str(self.folder)},
            )
            writer = os.open(fifo, os.O_WRONLY)  # waits until the program reads
            self.addCleanup(os.close, writer)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            self.assertEqual(len(children), 1)
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
            self.assertIn(said, errors)
            self.assertNotEqual(process.returncode, 0)
            self.assertFalse(Path(f"/proc/{children[0]}").exists())
            fifo.unlink()
            self.assertEqual(list(self.folder.iterdir()), [])

    def test_handlers_stay(self):
        handlers = [signal.getsignal(signal.SIGTERM)]
        prism_cnn.layers(TINY)
        handlers.append(signal.getsignal(signal.SIGTERM))
        self.assertEqual(handlers, [signal.SIG_DFL, signal.SIG_DFL])

    def test_a_full_disk(self):
        """A file of temporary files that cannot grow beyond a limit: as on a disk that is full."""
        script = (
            "import resource, signal, sys, numpy, prism_cnn\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            f"try: prism_cnn.explain({str(TINY)!r}, numpy.full((1, 64, 64, 3), 9, 'uint8'))\n"
            "except prism_cnn.PrismError as error: print(error)\n"
        )
        done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertRegex(done.stdout.decode(), r"^no temporary file can be written \(.*\); the variable TMPDIR names")
        self.assertEqual(done.stderr, b"")

    def test_a_bar_that_fails_ends_the_program(self):
        class Broken(program.Progress):
            is_shown = True

            def show(self, line):
                raise ValueError("no place")

        here, program.Progress.here = program.Progress.here, staticmethod(lambda quiet: Broken())
        try:
            with self.assertRaisesRegex(ValueError, "no place"):
                prism_cnn.explain(TINY, SAMPLES, figures="none", batch_size=1)
        finally:
            program.Progress.here = staticmethod(here)
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
        self.assertEqual(children, "")

    def test_progress_is_drawn_on_a_terminal(self):
        import fcntl
        import pty
        import struct
        import termios

        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
        script = f"import prism_cnn; prism_cnn.explain({str(TINY)!r}, {str(SAMPLES)!r}, batch_size=1, verbose=True)"
        with subprocess.Popen([sys.executable, "-c", script], stderr=its):
            os.close(its)
            drawn = b""
            while True:
                try:
                    drawn += os.read(ours, 1 << 16)
                except OSError:
                    break
        os.close(ours)
        self.assertIn(b"\r\x1b[2K", drawn)
        self.assertRegex(drawn, rb"prism: layer|prism: .*layer")
        self.assertTrue(drawn.rstrip().endswith(b"\x1b[2K"), drawn[-80:])
        bars = [bar.decode() for bar in drawn.split(b"\r\x1b[2K") if bar and b"\n" not in bar]
        self.assertTrue(bars)
        self.assertLess(max(map(len, bars)), 40)

    def test_bars(self):
        from prism_cnn.progress import bar

        shown = bar("decoding and forwarding ███▉░░░ 3/9, 12 images/s, 1 s left")
        self.assertIn('<progress value="3" max="9"', shown)
        self.assertIn("decoding and forwarding <", shown)
        self.assertIn(", 12 images/s, 1 s left", shown)
        self.assertEqual(bar("loading <a> 2s"), "<div>loading &lt;a&gt; 2s</div>")

    def test_command(self):
        done = subprocess.run([sys.executable, "-m", "prism_cnn", "--version"], stdout=subprocess.PIPE)
        self.assertEqual((done.returncode, done.stdout.decode().strip()), (0, f"prism {prism_cnn.__version__}"))
        done = subprocess.run([sys.executable, "-m", "prism_cnn", "--nonsense"], stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 2)
        with environment(PRISM_PROGRAM=str(self.folder / "gone")):
            done = subprocess.run([sys.executable, "-m", "prism_cnn"], stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(
            done.stderr.decode(), r"^prism: error: PRISM_PROGRAM=.* cannot be started: No such file or directory\n$"
        )

    def test_torch_is_not_loaded(self):
        script = (
            "import sys, prism_cnn; assert 'numpy' not in sys.modules; "
            f"prism_cnn.explain({str(TINY)!r}, {str(SAMPLES / 'cat.jpg')!r}, figures='none'); "
            "assert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)
