"""The report that people keep: one to three pages of PDF, encapsulated in DICOM. No identity is printed on it."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

from highdicom.base import SOPClass
from highdicom.sr import CodedConcept
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from pydicom import Dataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from medvl.delivery.codes import DOCUMENT_TITLE
from medvl.delivery.drawing import (
    LIGHT,
    banner,
    blank,
    picture,
    rows,
    settings,
    survival_text,
    table,
    undecided_text,
    view_title,
    words,
)
from medvl.delivery.planes import View
from medvl.delivery.stamp import Job, bare, finish, reference

_A4 = (8.27, 11.69)
_FIRST, _NEXT = 24, 52
_WHY = 30
_MARGIN = 0.07
_HOW_TO_READ = (
    "Probability: of the finding being present, calibrated on validation patients of the model named above; a number for "
    "statistics, not a diagnosis. The line in a bar is the threshold; in the grey band around it no verdict is given.",
    "Undecided: the software declines to answer, and says why. It is neither present nor absent. A question that depends on "
    "another one is undecided where that one is.",
    "Colours in the pictures: where the model looked. They are neither an outline nor a probability that tissue is ill.",
    "Planes are shown as seen from the feet (axial) and from the front (coronal): R is the patient's right. Window 400/40 HU.",
)


def report_pdf(job: Job, views: Sequence[View]) -> Dataset:
    """The report as an Encapsulated PDF."""
    content = pdf_bytes(job, views)
    made = SOPClass(
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **bare(job, "pdf"),
    )
    made.ConversionType = "WSD"
    made.BurnedInAnnotation = "NO"
    made.RecognizableVisualFeatures = "NO"
    made.AcquisitionDateTime = ""
    made.DocumentTitle = "medvl findings, research use only, unverified"
    made.ConceptNameCodeSequence = [CodedConcept.from_code(DOCUMENT_TITLE)]
    made.VerificationFlag = "UNVERIFIED"
    made.MIMETypeOfEncapsulatedDocument = "application/pdf"
    made.EncapsulatedDocumentLength = len(content)
    made.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
    made.SourceInstanceSequence = [reference(image) for image in job.source.images]
    finish(made, job)
    return made


def pdf_bytes(job: Job, views: Sequence[View]) -> bytes:
    """The document; equal for equal input."""
    shown = rows(job.told.answers)
    parts = [shown[:_FIRST], *(shown[k : k + _NEXT] for k in range(_FIRST, len(shown), _NEXT))][:2]
    left_out = len(shown) - sum(map(len, parts))
    about = {"Title": "medvl findings", "Creator": "medvl", "Producer": "medvl", "CreationDate": job.local}
    buffer = io.BytesIO()
    with settings(), PdfPages(buffer, metadata=about) as pdf:
        n_pages = len(parts) + 1
        figure = _page(1, n_pages)
        _first(figure, job, views)
        table(blank(figure, (_MARGIN, 0.05, 1 - 2 * _MARGIN, 0.375)), parts[0], LIGHT, 1 / (_FIRST + 1), 7.5)
        pdf.savefig(figure)
        for k, part in enumerate(parts[1:], 2):
            figure = _page(k, n_pages)
            table(blank(figure, (_MARGIN, 0.06, 1 - 2 * _MARGIN, 0.86)), part, LIGHT, 1 / (_NEXT + 1), 7.5)
            pdf.savefig(figure)
        figure = _page(n_pages, n_pages)
        _last(figure, job, left_out)
        pdf.savefig(figure)
    return buffer.getvalue()


def _page(number: int, n_pages: int) -> Figure:
    figure = Figure(_A4, dpi=150, facecolor=LIGHT.paper)
    banner(figure, LIGHT, 0.03, 8.5)
    foot = blank(figure, (_MARGIN, 0.015, 1 - 2 * _MARGIN, 0.025))
    foot.text(0, 0.5, "Patient and study: see the DICOM header of this document.", color=LIGHT.faint, size=7, va="center")
    foot.text(1, 0.5, f"Page {number} of {n_pages}", color=LIGHT.faint, size=7, va="center", ha="right")
    return figure


def _first(figure: Figure, job: Job, views: Sequence[View]) -> None:
    """Heading and pictures."""
    told = job.told
    axes = blank(figure, (_MARGIN, 0.895, 1 - 2 * _MARGIN, 0.065))
    axes.text(0, 0.25, "Answers of a research model", color=LIGHT.ink, size=15, weight="bold", va="center")
    model = f"{told.software}; model {words(told.bundle)}, SHA-256 {told.bundle_sha256[:16]}…"
    axes.text(0, 0.66, model, color=LIGHT.faint, size=8, va="center")
    made = f"Made by software {job.local:%Y-%m-%d %H:%M}. Unverified and preliminary."
    axes.text(0, 0.92, made, color=LIGHT.faint, size=8, va="center")
    width, gap = (1 - 2 * _MARGIN - 0.04) / 3, 0.02
    height = width * _A4[0] / _A4[1]
    for k, view in enumerate(views):
        left = _MARGIN + k * (width + gap)
        text = blank(figure, (left, 0.865, width, 0.026))
        for j, line in enumerate(textwrap.wrap(view_title(view), 40)[:2]):
            text.text(0, 0.2 + 0.5 * j, line, color=LIGHT.ink, size=7, weight="bold", va="center")
        for j, plane in enumerate((view.axial, view.coronal)):
            picture(figure.add_axes((left, 0.86 - (j + 1) * height - j * 0.005, width, height)), plane, LIGHT, 7)
        place = blank(figure, (left, 0.86 - 2 * height - 0.025, width, 0.016))
        place.text(0, 0.5, view.where, color=LIGHT.faint, size=5.5, va="center")


def _last(figure: Figure, job: Job, left_out: int) -> None:
    """Why answers are undecided, the survival estimate, who said it, and how to read it."""
    axes = blank(figure, (_MARGIN, 0.06, 1 - 2 * _MARGIN, 0.89))
    told = job.told
    why = undecided_text(told.answers)
    if len(why) > _WHY:
        why[_WHY:] = [f"and {len(why) - _WHY} more, in the structured report"]
    model = f"{told.software}; model {words(told.bundle)}, SHA-256 {told.bundle_sha256}" + (
        f"; findings list {words(told.asked)}" if told.asked else "; the model's own findings list"
    )
    sections = [
        (
            "Undecided, and why",
            why,
        ),
        ("Noticed in the images", [words(f"{note.code}: {note.message}") for note in told.notes]),
        ("Survival estimate", [text] if (text := survival_text(told.risk)) else []),
        ("Left out of the table", [f"{left_out} more answers are in the structured report"] if left_out else []),
        ("How to read this", list(_HOW_TO_READ)),
        ("Model", [model, told.research_use]),
    ]
    y = 0.02
    for title, lines in sections:
        if not lines:
            continue
        axes.text(0, y, title, color=LIGHT.ink, size=10, weight="bold", va="center")
        y += 0.022
        for line in lines:
            for k, part in enumerate(textwrap.wrap(line, 116)):
                axes.text(0.012 if k == 0 else 0.022, y, part, color=LIGHT.ink, size=7.5, va="center")
                y += 0.0145
        y += 0.014
