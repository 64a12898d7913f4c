"""Modules of the user's torch, and TorchPRISM's snippet."""

import contextlib
import copy
import io
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest
import warnings
from pathlib import Path

import numpy as np
from common import DATA, environment, has_torch, modules, needs_torch, no_warnings

import prism_cnn
from prism_cnn import PRISM

if has_torch:
    import torch
    from torch import nn

    from prism_cnn import export as exporter

    class Plain(nn.Module):
        """A small classifier of any size of image."""

        def __init__(self, channels=3):
            super().__init__()
            torch.manual_seed(1)
            first, second = nn.Conv2d(channels, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
            self.features = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), second, nn.ReLU())
            self.classifier = nn.Linear(16, 10)
            self.eval()

        def forward(self, images):
            return self.classifier(self.features(images).mean([2, 3]))

    class Condition(Plain):
        def forward(self, images):
            return super().forward(torch.cond(images.sum() > 1e9, lambda x: x - 1, lambda x: x * 1, (images,)))

    class Outside(Plain):
        def forward(self, images):
            return super().forward(torch.from_numpy(images.numpy() * 2))

    class Picture(Plain):
        def forward(self, images):
            return images

    class Fails(Plain):
        def forward(self, images):
            raise RuntimeError("it needs coffee\nsecond line")


    class Stops(Plain):
        def forward(self, images):
            raise StopIteration

    class Draws(Plain):
        def forward(self, images):
            return super().forward(nn.functional.dropout(images, 0.5, True))

    class Unsettled(Plain):
        def eval(self):
            if self.is_made:
                raise NotImplementedError("no modes")
            return super().eval()

        is_made = False

        def __init__(self):
            super().__init__()
            self.is_made = True

    class Undefined(Plain):
        def forward(self, images):
            return super().forward(images).log()


def images(channels=3, side=64, count=2):
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def scores(module, batch):
    with torch.no_grad():
        return module(batch).numpy()


@needs_torch
class Modules(unittest.TestCase):
    def agrees(self, module, batch, **keywords):
        result = prism_cnn.explain(module, batch, figures="none", **keywords)
        wanted = scores(module.eval(), batch)
        np.testing.assert_allclose(result.logits, wanted, atol=1e-4 * np.abs(wanted).max())
        return result

    def test_scores_are_those_of_the_module(self):
        with no_warnings():
            result = self.agrees(Plain(), images())
        self.assertEqual(result.summary["network"], "Plain")
        self.agrees(Plain(), images(side=96))
        self.agrees(Plain(channels=1), images(channels=1))
        self.agrees(torch.jit.script(Plain()), images())

    def test_pictures_with_the_size_that_is_given(self):
        photographs = np.random.default_rng(0).integers(0, 256, (2, 50, 60, 3), np.uint8)
        for size in (64, "64", (64, 64), "64x64"):
            result = prism_cnn.explain(Plain(), photographs, image_size=size, figures="none")
            self.assertEqual(result.summary["input_size"], [64, 64])
        self.assertEqual(result.summary["settings"]["mean"]["from"], "assumed")
        self.assertEqual(prism_cnn.explain(Plain(), photographs, figures="none").summary["input_size"], [224, 224])
        module = Plain()
        module.pretrained_cfg = {"input_size": (3, 48, 48), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
        settings = prism_cnn.explain(module, photographs, figures="none").summary["settings"]
        self.assertEqual(
            (settings["size"]["value"], settings["mean"]), ([48, 48], {"value": [0.5] * 3, "from": "the file"})
        )

    def test_wrapped_modules(self):
        for wrapped in (
            nn.DataParallel(Plain()),
            torch.compile(Plain()) if hasattr(torch, "compile") else nn.DataParallel(Plain()),
        ):
            result = prism_cnn.explain(wrapped, images(), figures="none")
            np.testing.assert_allclose(result.logits, scores(Plain(), images()), atol=1e-5)

    def test_training_mode_is_noticed_and_kept(self):
        module = Plain().train()
        module.features[1].eval()
        before = torch.random.get_rng_state()
        with self.assertWarnsRegex(prism_cnn.PrismWarning, "training mode") as caught:
            result = prism_cnn.explain(module, images(), figures="none")
        self.assertEqual(caught.filename, __file__)
        self.assertTrue(torch.equal(before, torch.random.get_rng_state()))
        self.assertTrue(module.training and module.features[2].training and not module.features[1].training)
        np.testing.assert_allclose(result.logits, scores(module.eval(), images()), atol=1e-5)

    def test_other_numbers_are_converted_in_a_copy(self):
        module = Plain().double()
        result = prism_cnn.explain(module, images().double(), figures="none")
        self.assertEqual(next(module.parameters()).dtype, torch.float64)
        np.testing.assert_allclose(result.logits, scores(Plain(), images()), atol=1e-5)

    def test_tensors_elsewhere(self):
        class Elsewhere(torch.Tensor):
            """As a tensor on a GPU: its numbers cannot be seen before .cpu()."""

            copied = False

            def detach(self):
                return self

            def cpu(self):
                Elsewhere.copied = True
                return self.as_subclass(torch.Tensor)

            def numpy(self):
                raise TypeError("can't convert cuda:0 device type tensor to numpy")

        result = prism_cnn.explain(Plain(), images().as_subclass(Elsewhere), figures="none")
        self.assertTrue(Elsewhere.copied)
        np.testing.assert_allclose(result.logits, scores(Plain(), images()), atol=1e-5)
        with self.assertRaisesRegex(prism_cnn.UsageError, "device 'meta'"):
            prism_cnn.explain(Plain().to("meta"), images())

    @unittest.skipUnless(has_torch and torch.cuda.is_available(), "needs a GPU")
    def test_on_a_gpu(self):
        module, batch = Plain().cuda(), images().cuda()
        result = prism_cnn.explain(module, batch, figures="none")
        self.assertEqual(next(module.parameters()).device.type, "cuda")
        np.testing.assert_allclose(result.logits, scores(Plain(), images()), atol=1e-4)

    def test_what_cannot_be_exported(self):
        for module, said in [
            (Condition(), "Condition cannot be exported: .*operator|Condition cannot be exported: .*cond"),
            (Outside(), "Outside cannot be exported: .*differ.*depend on values.*torch's own operators"),
            (Picture(), r"no class scores \[N,K\]"),
            (Fails(), "Fails does not run on images of 3x64x64: it needs coffee$"),
            (Plain(channels=4), "to have 4 channels"),
            (Stops(), r"Stops does not run on images of 3x64x64: StopIteration$"),
            (Draws(), "two runs on the same image give different scores; does its forward draw random numbers"),
            (Undefined(), "returns NaN or infinity for normal random images"),
            (Unsettled(), r"Unsettled.eval\(\) fails: no modes; give a module that has it"),
        ]:
            with self.assertRaisesRegex(prism_cnn.UsageError, said) as caught:
                prism_cnn.explain(module, images(), quiet=True)
            self.assertEqual(len(str(caught.exception).splitlines()), 1)
            self.assertLessEqual(len(str(caught.exception)), 300)

    def test_modules_of_torch_export(self):
        if torch.__version__ < exporter.DEFAULT_PT2:
            self.skipTest("needs a newer torch")
        sizes = ({0: torch.export.Dim("batch")},)
        with no_warnings():
            exported = torch.export.export(Plain(), (images(),), dynamic_shapes=sizes).module()
        result = prism_cnn.explain(exported, images(), figures="none", quiet=True)
        np.testing.assert_allclose(result.logits, scores(Plain(), images()), atol=1e-5)

    def test_operators_of_other_libraries(self):
        """Named before the program meets them, in files of torch.export and of TorchScript."""
        library = torch.library.Library("prism_tests", "DEF")
        self.addCleanup(library._destroy)
        library.define("twice(Tensor images) -> Tensor")
        library.impl("twice", lambda images: images * 2, "CompositeExplicitAutograd")

        class Foreign(Plain):
            def forward(self, images):
                return super().forward(torch.ops.prism_tests.twice(images))

        class Script(nn.Module):
            def __init__(self):
                super().__init__()
                self.plain = Plain()

            def forward(self, images):
                return self.plain(torch.ops.prism_tests.twice(images))

        for module in (Foreign(), Script().eval()):
            with self.assertRaisesRegex(prism_cnn.UsageError, "does not (run|have).* operator prism_tests"):
                prism_cnn.explain(module, images())

    def test_unlike(self):
        nan, inf = float("nan"), float("inf")
        for ours, theirs, alike in (
            ([1, nan, inf], [1.00001, nan, inf], True),
            ([1, nan], [1, 2], False),
            ([1, 2], [1, nan], False),
            ([inf], [-inf], False),
            ([1e6 + 50], [1e6], True),
            ([1.001, 1e6], [1, 1e6], True),
            ([1.001, inf], [1, inf], False),
        ):
            self.assertEqual(not exporter.unlike(torch.tensor(ours), torch.tensor(theirs)), alike, (ours, theirs))

    def test_sizes(self):
        for size in (64, "64", (64, 64), [64], np.int64(64), np.array([64, 64]), torch.Size([64, 64])):
            self.assertIn("8x32x32", prism_cnn.layers(Plain(), image_size=size))
        for size in (0, -3, 1.5, (1, 2, 3), [], "3x", None, {}):
            if size is not None:
                with self.assertRaisesRegex(prism_cnn.UsageError, "is no size: expected N or HxW in pixels"):
                    prism_cnn.layers(Plain(), image_size=size)

    def test_hints(self):
        fixed = Plain()
        fixed.classifier = nn.Sequential(nn.Linear(16, 10))
        fixed.forward = lambda images: Plain.forward(fixed, images).view(-1, 10) + images.view(-1, 3 * 64 * 64)[:, :10]
        with self.assertRaisesRegex(prism_cnn.UsageError, r"size .*\(image_size sets another size\)$"):
            prism_cnn.layers(fixed)
        with self.assertRaisesRegex(prism_cnn.UsageError, "it needs coffee$"):
            prism_cnn.layers(Fails())

    def test_channels(self):
        """Of the input, though a convolution of one channel comes first."""

        class Gated(Plain):
            def __init__(self):
                super().__init__()
                self.gate = nn.Conv2d(1, 1, 3, padding=1)
                self._modules = {"gate": self._modules.pop("gate"), **self._modules}

            def forward(self, images):
                return super().forward(images * self.gate(images.mean(1, keepdim=True)).sigmoid())

        self.assertIn("features.2", prism_cnn.layers(Gated().eval(), image_size=64))

    def test_libraries_are_its_own(self):
        """Those of the torch here, which the loader would find first, are not taken."""
        with environment(LD_LIBRARY_PATH=os.path.join(os.path.dirname(torch.__file__), "lib")):
            with no_warnings():
                self.agrees(Plain(), images())

    def test_scripted_modules(self):
        """Saved as they are, with the size that is given, and without a word of torch.jit."""
        scripted = torch.jit.script(Plain())
        photographs = np.random.default_rng(0).integers(0, 256, (2, 50, 60, 3), np.uint8)
        with no_warnings():
            result = prism_cnn.explain(scripted, photographs, image_size=(64, 96), figures="none", quiet=True)
            table = prism_cnn.layers(scripted, image_size=64)
        self.assertEqual(result.input.shape, (2, 3, 64, 96))
        np.testing.assert_allclose(result.logits, scores(Plain(), torch.from_numpy(result.input)), atol=1e-5)
        self.assertIn("8x32x32", table)
        with self.assertWarnsRegex(prism_cnn.PrismWarning, "training mode"):
            prism_cnn.explain(scripted.train(), images(), figures="none")
        self.assertTrue(scripted.training)
        double = torch.jit.script(Plain().double())
        with no_warnings():
            result = prism_cnn.explain(double, images().double(), figures="none")
        np.testing.assert_allclose(result.logits, scores(Plain(), images()), atol=1e-5)

    def test_a_part_in_training_mode_is_noticed(self):
        module = Plain()
        module.features[1].train()
        with self.assertWarnsRegex(prism_cnn.PrismWarning, "the part features.1 of the model is in training mode"):
            result = prism_cnn.explain(module, images(), figures="none")
        self.assertEqual([part.training for part in module.features[:3]], [False, True, False])
        np.testing.assert_allclose(result.logits, scores(Plain(), images()), atol=1e-5)

    def test_a_traced_branch(self):
        """Random images never take it, and neither torch.export nor torch.jit.script can keep it."""

        class Branches(Plain):
            def forward(self, images):
                return super().forward(images * 2 if float(images.max()) > 6 else images)

        usual, bright = images(), images()
        bright[1, 0, 0, 0] = 7
        with self.assertWarnsRegex(prism_cnn.PrismWarning, "Branches was traced.*checked with the images$"):
            self.agrees(Branches(), usual)
        with self.assertWarnsRegex(prism_cnn.PrismWarning, "Branches was traced.*random images alone$"):
            prism_cnn.explain(Branches(), np.full((1, 64, 64, 3), 9, np.uint8), image_size=64, figures="none")
        with self.assertRaisesRegex(prism_cnn.UsageError, "scores of the traced network differ"):
            prism_cnn.explain(Branches(), bright)

    def test_the_module_is_left_as_it_is(self):
        class Counts(Plain):
            calls = switched = 0

            def train(self, mode=True):
                super().train(mode)
                self.switched += 1  # and returns nothing

            def forward(self, images):
                self.calls += 1
                return super().forward(images)

        module = Counts()
        before = module.switched
        self.agrees_without_eval(module)
        self.assertEqual((module.calls, module.switched), (0, before))

        class Uncopied(Counts):
            def __deepcopy__(self, memo):
                raise TypeError("there is one alone")

        module = Uncopied()
        module.features[1].train()
        with self.assertWarnsRegex(prism_cnn.PrismWarning, "training mode"):
            self.agrees_without_eval(module)
        self.assertEqual([part.training for part in module.features[:3]], [False, True, False])
        self.assertGreater(module.calls, 0)

    def agrees_without_eval(self, module):
        result = prism_cnn.explain(module, images(), figures="none")
        np.testing.assert_allclose(result.logits, scores(Plain(), images()), atol=1e-5)

    def test_random_numbers_are_left_as_they_are(self):
        module, seeded = Plain(), []
        whole, torch.cuda.manual_seed_all = torch.cuda.manual_seed_all, seeded.append
        try:
            prism_cnn.explain(module, images(), figures="none")
        finally:
            torch.cuda.manual_seed_all = whole
        self.assertEqual(seeded, [])

    def test_defaults_of_torch(self):
        module, batch = Plain(), images()
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        try:
            with no_warnings():
                logits = prism_cnn.explain(module, batch, figures="none").logits
            self.assertEqual((torch.get_default_dtype(), torch.get_default_device().type), (torch.float64, "meta"))
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)
        np.testing.assert_allclose(logits, scores(Plain(), images()), atol=1e-5)

    def test_two_threads(self):
        before = sys.stdout, sys.stderr, list(warnings.filters), logging.root.manager.disable
        found, failures = {}, []

        def work(number):
            try:
                for _ in range(2):
                    found[number] = prism_cnn.explain(Plain(), images(), figures="none", quiet=True).logits
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertEqual((sys.stdout, sys.stderr, list(warnings.filters), logging.root.manager.disable), before)
        for logits in found.values():
            np.testing.assert_allclose(logits, scores(Plain(), images()), atol=1e-5)

    def test_the_file_is_not_kept(self):
        result = prism_cnn.explain(Plain(), images())
        kept = {path.suffix for path in Path(result.figures[0]).parent.iterdir()}
        self.assertEqual(kept, {".json", ".npz", ".jpg"})
        self.assertIn("<iframe", result.report()._repr_html_())

    def test_layers(self):
        self.assertIn("features.2", prism_cnn.layers(Plain(), image_size=64))


@needs_torch
class Exporting(unittest.TestCase):
    """The command python -m prism_cnn.export."""

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        (self.folder / "small.py").write_text(
            "from torch import nn\n"
            "def make(channels=3):\n"
            "    return nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),\n"
            "                         nn.Flatten(), nn.Linear(8, 4))\n"
        )

    def export(self, *words):
        """What the command says on both streams, and its status."""
        command = ["export", f"{self.folder}/small.py:make", "--image-size", "64", *map(str, words)]
        with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(io.StringIO()):
            before, sys.argv = sys.argv, command
            try:
                exporter.main()
                return said.getvalue()
            except SystemExit as left:
                return left.code
            finally:
                sys.argv = before
                sys.modules.pop("small", None)

    def test_channels(self):
        file = self.folder / "grey.pt"
        said = self.export("--channels", 1, "--arguments", '{"channels": 1}', "--output", file)
        self.assertEqual(said, f"{file}: scripted, 4 classes, images of 64x64\n")
        batch = images(channels=1)
        self.assertEqual(prism_cnn.explain(file, batch, figures="none").logits.shape, (2, 4))
        said = self.export("--channels", 1, "--arguments", "{'channels': 1}", "--mean", "0.5,0.5,0.5")
        self.assertEqual(said, "export: --mean 0.5,0.5,0.5: expected 1 numbers separated by commas")

    def test_what_is_refused(self):
        whole, several, text = (self.folder / name for name in ("whole.pth", "list.pth", "text.pth"))
        torch.save(Plain(), whole)
        torch.save([torch.zeros(3)], several)
        text.write_text("no weights")
        for words, said in (
            (("--state-dict", whole), "whole.pth is no state dict; torch.save\\(network.state_dict"),
            (("--state-dict", text), "text.pth is no state dict"),
            (("--state-dict", several), "list.pth holds a list, which is no state dict"),
            (("--state-dict", self.folder / "gone.pth"), "gone.pth"),
            (("--arguments", "{"), "--arguments {: expected a JSON object"),
            (("--arguments", "[3]"), r"--arguments \[3\]: expected a JSON object"),
            (("--arguments", '{"depth": 3}'), "unexpected keyword argument 'depth'"),
        ):
            found = self.export(*words)
            self.assertRegex(found, "^export: .*" + said)
            self.assertEqual(len(found.splitlines()), 1)
            self.assertLessEqual(len(found), 300)

    def test_without_torch(self):
        script = "import runpy, sys; sys.modules['torch'] = None; runpy.run_module('prism_cnn.export', run_name='__main__')"
        done = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr.decode(), r"^export: torch is not installed; [^\n]*\n$")

    def test_a_full_disk(self):
        """torch's own writer would end the process."""
        script = (
            "import resource, signal, sys, torch, prism_cnn\n"
            f"sys.path.insert(0, {str(self.folder)!r})\n"
            "import small\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "module = small.make().eval()\n"
            "modules = module, torch.jit.script(module)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
            "for module in modules:\n"
            "    try: prism_cnn.layers(module, image_size=64)\n"
            "    except prism_cnn.PrismError as error: print(error)\n"
        )
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], stdout=subprocess.PIPE)
        self.assertEqual(done.returncode, 0)
        self.assertEqual(done.stdout.decode().count("no temporary file can be written (File too large); the var"), 2)


@needs_torch
class TorchPrism(unittest.TestCase):
    """The stored arrays are of an independent implementation that meets TorchPRISM's."""

    def tearDown(self):
        PRISM.prune()

    def compare(self, name, modes):
        module = modules().build(name)
        stored = torch.jit.load(str(DATA / "networks" / f"{name}_scripted.pt"))
        module.load_state_dict(stored.state_dict())  # versions of torch differ in their random weights
        with np.load(DATA / "expected" / f"{name}.npz") as stored:
            expected = dict(stored)
        batch = torch.from_numpy(expected["input"])
        PRISM.register_hooks(module)
        module(batch)
        for keywords, array in modes.items():
            maps = PRISM.get_maps(**dict(zip(("grad_extrap", "inclusive", "exclusive"), keywords)))
            wanted = expected[array]
            self.assertEqual((maps.dtype, tuple(maps.shape)), (torch.float32, wanted.shape))
            difference = np.abs(maps.numpy() - wanted)
            if "clusive" in array or "both" in array:  # quantised: 0.5 % of the pixels may be of a neighbouring colour
                self.assertLessEqual((difference.max(1) > 1e-3).mean(), 0.005, (name, array))
            else:
                self.assertLessEqual(difference.max(), 1e-3, (name, array))
                self.assertLessEqual(difference.mean(), 1e-4, (name, array))

    def test_maps_are_torchprisms(self):
        plain = {(True,): "maps_torchprism", (False,): "maps_torchprism_no_ge"}
        for name in ("tiny_bottleneck", "tiny_mobilenet", "tiny_squeezenet", "tiny_dict", "tiny_convnext"):
            self.compare(name, plain)
        every = {(): "maps_torchprism", (False,): "maps_torchprism_no_ge"}
        for inclusive, exclusive, mode in (
            (True, False, "inclusive"),
            (False, True, "exclusive"),
            (True, True, "both"),
        ):
            every[True, inclusive, exclusive] = f"maps_{mode}"
            every[False, inclusive, exclusive] = f"maps_{mode}_no_ge"
        for name in ("tiny_vgg", "tiny_resnet"):
            self.compare(name, every)

    @unittest.skipUnless(os.environ.get("PRISM_REFERENCE"), "PRISM_REFERENCE is the folder of TorchPRISM's own arrays")
    def test_torchprisms_own_arrays(self):
        import torchvision

        for name in os.environ.get("PRISM_REFERENCE_NETWORKS", "alexnet squeezenet1_0 resnet18").split():
            with np.load(os.path.join(os.environ["PRISM_REFERENCE"], name + ".npz")) as stored:
                expected = dict(stored)
            module = torchvision.models.get_model(name, weights="IMAGENET1K_V1").eval()
            PRISM.register_hooks(module)
            module(torch.from_numpy(expected["input"]))
            worst = 5e-3 if name == "resnet18" else 1e-3  # badly conditioned
            for grad_extrap, array in ((True, "maps_default"), (False, "maps_no_ge")):
                difference = np.abs(PRISM.get_maps(grad_extrap=grad_extrap).numpy() - np.nan_to_num(expected[array]))
                print(f"{name} {array}: {difference.max():.2g} at most, {difference.mean():.2g} in the mean")
                self.assertLessEqual(difference.max(), worst, (name, array))
            PRISM.prune(module)

    def test_the_last_call_counts(self):
        first, second = Plain(), modules().build("tiny_resnet")
        PRISM.register_hooks(first)
        PRISM.register_hooks(first)
        PRISM.register_hooks(second)
        self.assertEqual(len(first._forward_pre_hooks), 1)
        alone = images(count=3)
        first(images())
        second(images())
        second(alone)
        maps = PRISM.get_maps()
        self.assertEqual(len(maps), 3)
        PRISM.prune()
        PRISM.register_hooks(second)
        second(alone)
        torch.testing.assert_close(PRISM.get_maps(), maps, atol=1e-5, rtol=0)

    def test_nothing_is_kept(self):
        import weakref

        module = Plain()
        PRISM.register_hooks(module)
        module(images())
        PRISM.prune_old_hooks(module)
        self.assertEqual((len(module._forward_pre_hooks), PRISM._last), (0, None))
        with self.assertRaisesRegex(prism_cnn.UsageError, "no images are known"):
            PRISM.get_maps()
        gone = weakref.ref(module)
        PRISM.register_hooks(module)
        module(images())
        del module
        self.assertIsNone(gone())
        with self.assertRaisesRegex(prism_cnn.UsageError, "no images are known"):
            PRISM.get_maps()

    def test_images_are_those_of_the_call(self):
        class Writes(Plain):
            def forward(self, images):
                return super().forward(images.mul_(0.5))

        batch = images()
        module = Writes()
        PRISM.register_hooks(module)
        module(batch)
        other = Writes()
        wanted = prism_cnn.explain(other, images(), hooks="torchprism", figures="none").maps
        np.testing.assert_allclose(PRISM.get_maps().numpy(), wanted, atol=1e-5)

    def test_explaining_is_no_call(self):
        """Neither a hooked model nor a hooked part of it sees the images of an export."""
        module = Plain()
        PRISM.register_hooks(module)
        PRISM.register_hooks(module.features)
        PRISM.prune(module.features)
        batch = images(count=3)
        module(batch)
        before = PRISM._last
        PRISM.register_hooks(module.features)
        prism_cnn.explain(module, images(), figures="none")
        prism_cnn.layers(module)
        self.assertIs(PRISM._last, before)
        self.assertEqual([len(part._forward_pre_hooks) for part in (module, module.features)], [1, 1])
        self.assertEqual(len(PRISM.get_maps()), 3)
        self.assertIs(PRISM._last, before)

    def test_images_by_keyword(self):
        module = Plain()
        PRISM.register_hooks(module)
        module(images())
        module(images=images(count=3))
        self.assertEqual(len(PRISM.get_maps()), 3)
        module.forward = lambda images, scale=1: Plain.forward(module, images[0])
        module([images()])
        with self.assertRaisesRegex(prism_cnn.UsageError, "no images are known"):
            PRISM.get_maps()

    def test_copies_of_a_model(self):
        module = Plain()
        PRISM.register_hooks(module)
        other = copy.deepcopy(module)
        other(images(count=3))
        del module
        self.assertEqual(len(PRISM.get_maps()), 3)
        PRISM.register_hooks(other)
        self.assertEqual(len(other._forward_pre_hooks), 1)
        PRISM.prune()
        self.assertEqual((len(other._forward_pre_hooks), len(other._forward_pre_hooks_with_kwargs)), (0, 0))

    def test_parameters_of_other_kinds(self):
        module = Plain()
        module.classifier = nn.LazyLinear(10)
        PRISM.register_hooks(module)
        module(images())
        self.assertEqual(len(PRISM.get_maps()), 2)
        with torch.inference_mode():
            module = Plain()
            PRISM.register_hooks(module)
            module(images())
            self.assertEqual(len(PRISM.get_maps()), 2)

    def test_changed_weights_are_noticed(self):
        module = Plain()
        PRISM.register_hooks(module)

        def add():
            module.classifier.bias += 1

        for change in (
            add,
            lambda: module.classifier.bias.data.mul_(1.5),
            lambda: setattr(module, "classifier", nn.Linear(16, 10, bias=False)),
        ):
            module(images())
            with torch.no_grad():
                change()
            with self.assertRaisesRegex(prism_cnn.UsageError, "weights have changed"):
                PRISM.get_maps()
        module(images())
        module.classifier.weight.data = module.classifier.weight.data.clone()  # the same numbers elsewhere
        PRISM.get_maps()

    def test_training_mode(self):
        module = Plain().train()
        PRISM.register_hooks(module)
        module(images())
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            PRISM.get_maps()
        self.assertEqual(sum("training mode" in str(warning.message) for warning in said), 1)
        module.eval()
        with self.assertWarnsRegex(prism_cnn.PrismWarning, "was in training mode"):
            PRISM.get_maps()
