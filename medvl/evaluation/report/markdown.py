"""A report as Markdown, its figures as PNG files beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medvl.evaluation.report.document import Document, Picture, Table, Text
from medvl.evaluation.report.style import as_png
from medvl.files import replace_text, whole


def write_markdown(report: Document, folder: Path, name: str = "report.md") -> Path:
    """Write `folder/name` and `folder/figures/*.png`."""
    pictures = folder / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    for section in report.sections:
        for block in section.blocks:
            if isinstance(block, Picture):
                with whole(pictures / f"{block.name}.png") as part:
                    part.write_bytes(as_png(block.figure))
    path = folder / name
    replace_text(path, "\n".join(_lines(report)) + "\n")
    return path


def _lines(report: Document) -> Iterator[str]:
    yield f"# {_plain(report.title)}"
    yield f"\n*{_plain(report.lead)}*"
    for section in report.sections:
        yield f"\n## {_plain(section.title)}"
        for block in section.blocks:
            yield ""
            if isinstance(block, Table):
                yield from table_lines(block)
            elif isinstance(block, Picture):
                yield f"![{_plain(block.alt)}](figures/{block.name}.png)\n\n*{_plain(block.caption)}*"
            else:
                yield _text(block)


def table_lines(table: Table) -> Iterator[str]:
    """The caption in bold, then the table."""
    yield f"**{_plain(table.caption)}**\n"
    rule = ["---" if k < table.n_left else "---:" for k in range(len(table.columns))]
    for row in (table.columns, rule, *table.rows):
        yield f"| {' | '.join(_plain(cell) for cell in row)} |"


def _text(block: Text) -> str:
    if block.kind == "paragraph":
        return _plain(block.lines[0])
    mark = "- **Note:** " if block.kind == "warning" else "- "
    return "\n".join(mark + _plain(line) for line in block.lines)


def _plain(text: str) -> str:
    """Text that Markdown does not read as markup."""
    for sign in ("\\", "|", "*", "_", "<"):
        text = text.replace(sign, "\\" + sign)
    return text.replace("\n", " ")
