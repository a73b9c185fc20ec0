"""The summary page: one colour image that any viewer shows, as a DICOM secondary capture.

No name, number or date of the patient is in its pixels: Burned In Annotation is NO, and the viewer shows the header beside it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from highdicom.base import SOPClass
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from medvl.delivery.drawing import DARK, Theme, banner, blank, picture, rows, settings, survival_text, table, view_title, words
from medvl.delivery.planes import View
from medvl.delivery.stamp import Job, bare, finish, reference

WIDTH, HEIGHT, _DPI = 1600, 1200, 100
_MOST_ROWS = 32
_BODY_PARTS = {"kidney": "ABDOMEN", "abdomen": "ABDOMEN", "chest": "CHEST", "heart": "CHEST"}


def summary_page(job: Job, views: Sequence[View]) -> Dataset:
    """The page as a secondary capture, 8-bit RGB."""
    pixels = page_pixels(job, views)
    made = SOPClass(
        sop_class_uid=SecondaryCaptureImageStorage,
        modality="OT",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **bare(job, "page"),
    )
    made.ConversionType = "WSD"
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.BurnedInAnnotation = "NO"
    made.RecognizableVisualFeatures = "NO"
    made.LossyImageCompression = "00"
    made.PatientOrientation = ""
    if body_part := _body_part(job):
        made.BodyPartExamined = body_part
    else:
        made.Laterality = ""
    made.DerivationDescription = "Summary of answers of a research model; not for diagnosis"
    made.SourceImageSequence = [reference(image) for image in job.source.images]
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel, made.PlanarConfiguration, made.PhotometricInterpretation = 3, 0, "RGB"
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    made.PixelData = pixels.tobytes()
    finish(made, job)
    return made


def _body_part(job: Job) -> str:
    """Defined term for the regions asked, none of which is a paired part by itself; empty where that is not known."""
    kinds = {answer.region.removesuffix("_left").removesuffix("_right") for answer in job.told.answers}
    parts = {_BODY_PARTS.get(kind, "") for kind in kinds}
    return "CHESTABDOMEN" if parts == {"ABDOMEN", "CHEST"} else parts.pop() if len(parts) == 1 else ""


def page_pixels(job: Job, views: Sequence[View]) -> NDArray[np.uint8]:
    """(1200, 1600, 3) the page."""
    with settings():
        figure = Figure((WIDTH / _DPI, HEIGHT / _DPI), dpi=_DPI, facecolor=DARK.paper)
        canvas = FigureCanvasAgg(figure)
        banner(figure, DARK, 0.045, 15)
        _header(figure, job, DARK)
        _pictures(figure, views, DARK)
        _answers(figure, job, DARK)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _header(figure: Figure, job: Job, theme: Theme) -> None:
    axes = blank(figure, (0.02, 0.885, 0.96, 0.06))
    told, counts = job.told, {v: sum(a.verdict == v for a in job.told.answers) for v in ("present", "undecided", "absent")}
    summary = f"{counts['present']} present, {counts['undecided']} undecided, {counts['absent']} absent"
    axes.text(0, 0.3, f"medvl: {summary}", color=theme.ink, size=17, weight="bold", va="center")
    model = (
        f"{told.software}, model {words(told.bundle)} ({told.bundle_sha256[:12]}). Made by software {job.local:%Y-%m-%d %H:%M}."
    )
    axes.text(0, 0.85, f"{model} Patient and study: see the image header.", color=theme.faint, size=11, va="center")


def _pictures(figure: Figure, views: Sequence[View], theme: Theme) -> None:
    """Up to three rows of axial and coronal planes on the left."""
    height, top, width = 0.25, 0.845, 0.1875
    for k, view in enumerate(views):
        low = top - (k + 1) * height - k * 0.037
        text = blank(figure, (0.02, low + height, 2 * width + 0.01, 0.03))
        text.text(0, 0.25, view_title(view)[:64], color=theme.ink, size=11, weight="bold", va="center")
        text.text(0, 0.85, view.where, color=theme.faint, size=9, va="center")
        for j, plane in enumerate((view.axial, view.coronal)):
            axes = figure.add_axes((0.02 + j * (width + 0.01), low, width, height - 0.003))
            picture(axes, plane, theme, 11)


def _answers(figure: Figure, job: Job, theme: Theme) -> None:
    """The table on the right, and what does not fit in it."""
    shown = rows(job.told.answers)
    box = (0.43, 0.13, 0.55, 0.745)
    row = 1 / (_MOST_ROWS + 1)
    table(blank(figure, box), shown[:_MOST_ROWS], theme, row, 11)
    foot = blank(figure, (0.43, 0.01, 0.55, 0.11))
    said = [
        f"{len(shown) - _MOST_ROWS} more answers are in the structured report." if len(shown) > _MOST_ROWS else "",
        f"Survival estimate. {survival}" if (survival := survival_text(job.told.risk)) else "",
        "Bar: calibrated probability; line: threshold; grey band: no verdict is given. Colour in the pictures: where the model "
        "looked, neither an outline nor a probability.",
    ]
    lines = [line for text in said if text for line in textwrap.wrap(text, 118)]
    for k, line in enumerate(lines[:6]):
        foot.text(0, 0.1 + 0.16 * k, line, color=theme.faint, size=10, va="center")
