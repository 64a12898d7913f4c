"""The example notebook runs, and is stored without its outputs."""

import importlib.util
import json
import unittest

from common import ROOT, has_torch

NOTEBOOK = ROOT / "examples" / "prism.ipynb"


def has(*names):
    return all(importlib.util.find_spec(name) for name in names)


class Notebook(unittest.TestCase):
    def test_outputs_are_stripped(self):
        for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                self.assertEqual((cell["outputs"], cell["execution_count"]), ([], None))

    @unittest.skipUnless(
        has_torch and has("nbclient", "ipykernel", "timm"), "needs nbclient, ipykernel, torch and timm"
    )
    def test_it_runs(self):
        import nbclient
        import nbformat

        notebook = nbformat.read(NOTEBOOK, as_version=4)
        nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
        shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
        html = [output["data"]["text/html"] for output in shown if "text/html" in output.get("data", {})]
        self.assertEqual(sum('src="data:image/jpeg;base64,' in text for text in html), 2)
        self.assertEqual(sum("<iframe" in text and "srcdoc=" in text for text in html), 1)
        text = "".join(output.get("text", "") for output in shown)
        self.assertRegex(text, r"dog +German_shepherd 0\.9")
        self.assertIn("torch.Size([4, 3, 224, 224])", shown[-1]["data"]["text/plain"])
        errors = "".join(output.get("text", "") for output in shown if output.get("name") == "stderr")
        self.assertNotIn("PrismWarning", errors)
