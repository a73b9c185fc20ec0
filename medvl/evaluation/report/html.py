"""A report as one HTML file that needs nothing else: figures inside, no script, nothing fetched."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path

from medvl.evaluation.report.document import Document, Picture, Section, Table, Text
from medvl.evaluation.report.style import as_svg
from medvl.files import replace_text

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 Georgia, 'Times New Roman', serif; color: #222; background: #fff; max-width: 62rem; margin: 0 auto;
  padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; padding-top: .5rem; border-top: 1px solid #ccc; }
.lead { margin: 0 0 1rem; color: #8a3b00; font-weight: bold; }
nav { font: .85rem/1.7 system-ui, sans-serif; color: #767676; }
nav a { color: #0072b2; text-decoration: none; margin-right: 1rem; white-space: nowrap; }
.scroll { overflow-x: auto; margin: 0 0 1.4rem; }
table { border-collapse: collapse; font: .8rem/1.4 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
.caption { font: .8rem/1.45 system-ui, sans-serif; margin: 1.4rem 0 .4rem; color: #444; max-width: 60rem; }
th, td { padding: .22rem .8rem .22rem 0; text-align: right; vertical-align: top; white-space: nowrap; }
th { border-top: 1.5px solid #222; border-bottom: 1px solid #222; font-weight: 600; white-space: normal; vertical-align: bottom; }
tbody tr:last-child td { border-bottom: 1.5px solid #222; }
tbody tr:nth-child(even) { background: #f6f6f6; }
.left { text-align: left; }
td.left { white-space: normal; overflow-wrap: anywhere; min-width: 6rem; }
figure { margin: 1.4rem 0; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { font: .8rem/1.45 system-ui, sans-serif; color: #444; margin-top: .4rem; max-width: 60rem; }
.warning { border-left: 4px solid #d55e00; background: #fdf3ec; padding: .6rem 1rem .6rem 2rem; margin: 1rem 0; }
footer { margin-top: 3rem; border-top: 1px solid #ccc; padding-top: .6rem; font: .8rem system-ui, sans-serif; color: #767676; }
@media print { body { max-width: none; padding: 0; font-size: 11pt; } nav { display: none; } figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; } .scroll { overflow: visible; } }
"""


def write_html(report: Document, path: Path) -> Path:
    """Write the whole report to one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, "\n".join(_lines(report)) + "\n")
    return path


def _lines(report: Document) -> Iterator[str]:
    yield '<!DOCTYPE html>\n<html lang="en-GB">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(report.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>"
    yield f'<h1>{escape(report.title)}</h1>\n<p class="lead">{escape(report.lead)}</p>'
    links = (f'<a href="#{_anchor(s)}">{escape(s.title)}</a>' for s in report.sections)
    yield f'<nav aria-label="Sections">{" ".join(links)}</nav>\n<main>'
    for section in report.sections:
        yield f'<section>\n<h2 id="{_anchor(section)}">{escape(section.title)}</h2>'
        for block in section.blocks:
            yield _block(block)
        yield "</section>"
    yield f"</main>\n<footer>{escape(report.lead)}</footer>\n</body>\n</html>"


def _anchor(section: Section) -> str:
    return re.sub(r"\W+", "-", section.title.lower()).strip("-")


def _block(block: Text | Table | Picture) -> str:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Picture):
        data = base64.b64encode(as_svg(block.figure)).decode()
        image = f'<img alt="{escape(block.alt)}" src="data:image/svg+xml;base64,{data}">'
        return f"<figure>{image}<figcaption>{escape(block.caption)}</figcaption></figure>"
    if block.kind == "paragraph":
        return f"<p>{escape(block.lines[0])}</p>"
    kind = ' class="warning" role="note"' if block.kind == "warning" else ""
    return f"<ul{kind}>{''.join(f'<li>{escape(line)}</li>' for line in block.lines)}</ul>"


def _table(table: Table) -> str:
    def cells(tag: str, row: tuple[str, ...]) -> str:
        scope = ' scope="col"' if tag == "th" else ""
        return "".join(
            f"<{tag}{scope}{' class=left' if k < table.n_left else ''}>{escape(cell)}</{tag}>" for k, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in table.rows)
    head = f"<thead><tr>{cells('th', table.columns)}</tr></thead>"
    caption = escape(table.caption)
    whole = f'<table aria-label="{caption}">{head}<tbody>{body}</tbody></table>'
    return f'<p class="caption">{caption}</p>\n<div class="scroll">{whole}</div>'
