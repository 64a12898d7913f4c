"""The measured part of a page of docs/, between two markers."""
from pathlib import Path

BEGIN, END = "<!-- measured -->\n", "<!-- end of measured -->"


def put(page, text):
    """Replaces the measured part of the Markdown file `page` with `text`."""
    page = Path(page)
    before, rest = page.read_text(encoding="utf-8").split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    page.write_text(f"{before}{BEGIN}{text}\n{END}{after}", encoding="utf-8")
