"""Write docs/explanation/demo-report.md and its figures from a finished evaluation of the demo bundle.

medvl evaluate phantom-demo --out runs/evaluation
python docs/images/make_demo_report.py runs/evaluation
"""

import re
import sys
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).parents[1]
FIGURES = DOCS / "images" / "demo-report"


def main(source: Path) -> None:
    """Copy the report; figures lose colours that nobody sees, and half of their pixels."""
    FIGURES.mkdir(exist_ok=True)
    for path in sorted((source / "figures").glob("*.png")):
        with Image.open(path) as image:
            small = image.convert("RGB").resize((image.width * 2 // 3, image.height * 2 // 3), Image.Resampling.LANCZOS)
            small.quantize(48).save(FIGURES / path.name, optimize=True)
    text = (source / "report.md").read_text(encoding="utf-8")
    text = re.sub(r"\]\(figures/", "](../images/demo-report/", text)
    (DOCS / "explanation" / "demo-report.md").write_text(text, encoding="utf-8")


main(Path(sys.argv[1]))
