"""The picture of a data card in docs/explanation/cards.md, taken in headless Chromium.

python docs/images/make_data_card_png.py runs/lakeside/dataset/card.html
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

OUT = Path(__file__).with_name("data-card.png")
WIDTH, TOP, COLOURS = 1000, 4000, 64


def main(card: Path) -> None:
    """Photograph the card down to its follow-up curves, in few colours."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 800})
        page.goto(card.resolve().as_uri())
        taken = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": TOP})
        browser.close()
    picture = Image.open(io.BytesIO(taken)).convert("RGB").quantize(COLOURS)
    picture.save(OUT, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
