"""The measured parts of a page of docs/, each between two markers."""
from pathlib import Path


def put(page, text, part="measured"):
    """Replaces that part of the Markdown file `page` with `text`."""
    page, begin, end = Path(page), f"<!-- {part} -->\n", f"<!-- end of {part} -->"
    before, rest = page.read_text(encoding="utf-8").split(begin, 1)
    after = rest.split(end, 1)[1]
    page.write_text(f"{before}{begin}{text}\n{end}{after}", encoding="utf-8")
