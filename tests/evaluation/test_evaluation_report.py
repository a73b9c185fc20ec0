"""A report says everything that the record holds, stands alone, and is the same twice."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pretend import PROTOCOL, cohort, model

from medvl.evaluation.protocol import load_protocol
from medvl.evaluation.report.build import document
from medvl.evaluation.report.document import Document, Picture, Table, percent, span
from medvl.evaluation.report.html import write_html
from medvl.evaluation.report.markdown import write_markdown
from medvl.evaluation.results import Beside, Subject, evaluate
from medvl.records import RESEARCH_USE


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    second = Subject(model("b"), cohort(skill=1.0, model_sha256="sha of b"))
    train = {"train": cohort(60, seed=5, offset=500)}
    return evaluate(load_protocol(PROTOCOL), Subject(model(), cohort()), Beside(second, train))


@pytest.fixture(scope="module")
def report(told: dict[str, Any]) -> Document:
    return document(told)


class Tags(HTMLParser):
    """Open tags, sources of images, and whether every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.alts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.sources.append(str(dict(attrs)["src"]))
            self.alts.append(str(dict(attrs)["alt"]))
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_one_file_that_fetches_nothing(report: Document, tmp_path: Path) -> None:
    text = write_html(report, tmp_path / "report.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert len(tags.sources) >= 10
    assert all(s.startswith("data:image/svg+xml;base64,") for s in tags.sources)
    assert all(tags.alts)
    assert not re.search(r"<script|https?://(?!www\.w3\.org)|<link", text)
    assert text.count(RESEARCH_USE) == 2
    assert write_html(report, tmp_path / "again.html").read_text(encoding="utf-8") == text


def test_markdown_has_its_figures_and_whole_tables(report: Document, tmp_path: Path) -> None:
    text = write_markdown(report, tmp_path).read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^]]+\]\((figures/[\w-]+\.png)\)", text)
    assert sorted(shown) == sorted(f"figures/{p.name}" for p in (tmp_path / "figures").iterdir())
    assert all((tmp_path / p).read_bytes().startswith(b"\x89PNG") for p in shown)
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert RESEARCH_USE in text


def test_every_number_of_the_record_is_in_the_report(told: dict[str, Any], report: Document) -> None:
    cells = {cell for s in report.sections for b in s.blocks if isinstance(b, Table) for row in b.rows for cell in row}
    for found in told["tasks"]["zero_shot"]["findings"].values():
        assert {found["label"], span(found["auroc"]), percent(found["sensitivity"])} <= cells
    assert span(told["tasks"]["survival"]["concordance"]["model"]) in cells
    assert {*told["hashes"].values()} <= cells
    for way in ("image_to_report", "report_to_image"):
        assert {span(told["tasks"]["retrieval"][way][name]) for name in ("ndcg_shared_findings", "map_shared_findings")} <= cells
    assert span(told["comparison"]["rows"][0]["difference"]) in cells
    assert span(told["subgroups"][1]["groups"][0]["mean_auroc"]) in cells
    names = [b.name for s in report.sections for b in s.blocks if isinstance(b, Picture)]
    assert len(set(names)) == len(names)
    assert {"roc", "reliability", "decision", "risk-coverage", "survival", "subgroups", "comparison"} <= set(names)


def test_a_leak_stands_at_the_top(tmp_path: Path) -> None:
    found = evaluate(
        load_protocol(PROTOCOL), Subject(model(), cohort(40)), Beside(training={"train": cohort(40, seed=9, offset=38)})
    )
    text = write_markdown(document(found), tmp_path).read_text(encoding="utf-8")
    assert "LEAK: 2 patients of this cohort are in train too" in text.split("## Cohort")[0]


def test_a_report_of_nothing_measured_is_still_a_report(tmp_path: Path) -> None:
    table = cohort(30)
    nothing = replace(
        table,
        truth=np.full_like(table.truth, -1),
        report_embedding=np.full_like(table.report_embedding, np.nan),
        patients=table.patients.assign(event=False),
        evidence=None,
    )
    text = write_markdown(document(evaluate(load_protocol(PROTOCOL), Subject(model(), nothing))), tmp_path).read_text(
        encoding="utf-8"
    )
    assert "0 present and 0 absent; at least 5 and 5 are needed" in text
    assert text.count("NA: ") >= 3


def test_marks_of_markdown_and_html_in_names_are_text(told: dict[str, Any], tmp_path: Path) -> None:
    odd = {**told, "model": {"name": "<b>a|b*_c</b>", "sha256": "x" * 64}}
    page = write_html(document(odd), tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<b>a|b" not in page
    assert "&lt;b&gt;a|b" in page
    assert "\\<b>a\\|b\\*\\_c" in write_markdown(document(odd), tmp_path).read_text(encoding="utf-8")
