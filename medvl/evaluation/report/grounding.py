"""The section of a report on where maps point, and on whether answers need what they point at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medvl.evaluation.report import figures
from medvl.evaluation.report.document import NA, Picture, Table, Text, number, p_text, paragraph, points, span

Told = Mapping[str, Any]
Block = Text | Table | Picture


def grounding_blocks(task: Told, labels: Told) -> Iterator[Block]:
    """The pointing game and the deletion test, each as a figure and a table."""
    if "na" in task:
        yield paragraph(f"{NA}: {task['na']}.")
        return
    found = {_name(k, labels): f for k, f in task["findings"].items()}
    figure = figures.pointing(found)
    if figure is not None:
        yield Picture(
            "pointing",
            figure,
            "Pointing game by finding",
            "Share of maps whose highest place lies in the lesion; the orange mark is what a random place would reach.",
        )
    measured = {name: f for name, f in found.items() if "rate" in f}
    rows = [(name, str(f["n"]), span(f["rate"]), span(f["near"]), number(f["chance"])) for name, f in measured.items()]
    yield Table(
        ("finding", "lesions", "peak in the lesion", "within 5 mm", "chance"),
        tuple(rows),
        "Pointing game, for findings that are present",
    )
    yield from _deletion({name: f["deletion"] for name, f in measured.items() if "deletion" in f})
    small = [f"{name}: {f['na']}" for name, f in found.items() if "na" in f]
    if small:
        yield points(["Not measured:", *small])


def _name(key: str, labels: Told) -> str:
    return "All findings" if key == "all" else str(labels.get(key, key))


def _deletion(found: Mapping[str, Told]) -> Iterator[Block]:
    """Nothing for records that were made before deletion tests were kept."""
    if not found:
        return
    measured = {name: f for name, f in found.items() if "difference" in f}
    if measured:
        yield Picture(
            "deletion",
            figures.deletion(measured),
            "Deletion test by finding",
            "How much more the calibrated score falls when the peak's surroundings are filled in than when as much is filled "
            "elsewhere. Right of the dashed line, answers rest on what the map points at.",
        )
        rows = [
            (
                name,
                f"{f['n']} ({f['n_without']})",
                span(f["at_peak"]),
                span(f["elsewhere"]),
                span(f["difference"]),
                p_text(f["difference"]["p"]),
                span(f["larger"], 2),
            )
            for name, f in measured.items()
        ]
        yield Table(
            ("finding", "lesions (no room)", "fall at the peak", "fall elsewhere", "difference", "p", "falls more at the peak"),
            tuple(rows),
            "Deletion test, for findings that are present: a ball of 16 mm radius is filled with its surroundings, at the peak "
            "and at up to three other places of the region. In brackets: lesions whose region has no room for another place.",
        )
    left = [f"{name}: {f['na']}" for name, f in found.items() if "na" in f]
    if left:
        yield points(["No deletion test:", *left] if measured else [f"No deletion test: {left[0].partition(': ')[2]}"])
