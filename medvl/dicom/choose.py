"""Which series of a study to use, with the sentence that says why, for each of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from medvl.dicom.series import Scan, Series

_SHARP = re.compile(
    r"BONE|LUNG|EDGE|SHARP|DETAIL|^(B|BR|BL|HR|H|I|QR)[5-9]\d|^(FC)(3[0-9]|5[0-9]|8[0-9])|^(Y[A-D]|L|D|E)$", re.IGNORECASE
)
_SOFT = re.compile(r"STANDARD|SOFT|STD|^(B|BR|BF|HR|H|I|QR)[1-4]\d|^FC(0\d|1\d)|^(A|B|C|UB)$", re.IGNORECASE)
_AXIAL = ("S", "I")


@dataclass(frozen=True)
class Want:
    """What the caller needs.

    Args:
        contrast: True for contrast, False for none, None for either.
        phase: wanted phase hint, such as ``"portal_venous"``; None for any.
        kernel: ``"soft"``, ``"sharp"`` or None.
        spacing_mm: slices thinner than this bring nothing more; thicker ones cost.
        min_extent_mm: a shorter stack is chosen only when nothing longer is there.
    """

    contrast: bool | None = None
    phase: str | None = None
    kernel: str | None = "soft"
    spacing_mm: float = 1.5
    min_extent_mm: float = 60.0


@dataclass(frozen=True)
class Choice:
    """The chosen series.

    Args:
        key: of the chosen series, None when none is a volume.
        series: all series, best first, each with `why` filled; refused ones last.
    """

    key: str | None
    series: tuple[Series, ...] = field(repr=False)

    @property
    def chosen(self) -> Series | None:
        """The chosen series itself."""
        return self.series[0] if self.key is not None else None


def choose(scan: Scan | Iterable[Series], want: Want | None = None) -> Choice:
    """The series to use, by coverage, plane, kind, contrast, kernel and thickness; pure, ties broken by key.

    Args:
        scan: a scan, or the series of one study.
        want: what is needed; the defaults fit a soft-tissue model.
    """
    wish = want or Want()
    series = scan.series if isinstance(scan, Scan) else tuple(scan)
    volumes = [one for one in series if one.verdict == "volume"]
    scored = [(one, _score(one, wish)) for one in volumes]
    scored.sort(key=lambda pair: (-sum(points for points, _ in pair[1]), pair[0].key))
    ranked = []
    for rank, (one, marks) in enumerate(scored):
        words = ", ".join(word for _, word in marks if word)
        lead = "chosen" if rank == 0 else f"number {rank + 1} of {len(scored)}"
        if rank == 0 and len(scored) == 1:
            lead = "the only volume"
        ranked.append(replace(one, why=f"{lead}: {words}"))
    refused = [replace(one, why=f"refused: {one.reasons[0].message}") for one in series if one.verdict != "volume"]
    return Choice(ranked[0].key if ranked else None, (*ranked, *refused))


def _score(series: Series, want: Want) -> list[tuple[float, str]]:
    """(points, words) for each quality; more points are better."""
    assert series.geometry is not None  # noqa: S101 - a volume has one
    geometry, facts = series.geometry, series.facts
    step, extent = geometry.spacing_mm[0], geometry.extent_mm[0]
    image_type = " ".join(map(str, facts.get("image_type", []))).upper()
    return [
        (
            min(extent, 400.0) / 100 - (8 if extent < want.min_extent_mm else 0),
            f"{extent:.0f} mm in {geometry.shape_dhw[0]} slices",
        ),
        (4.0, "axial") if geometry.axes[0] in _AXIAL else (0.0, f"not axial ({geometry.axes})"),
        (-0.8 * max(0.0, step - want.spacing_mm), f"{step:.2g} mm apart"),
        (-6.0, "projected slabs") if "projection" in series.codes else (0.0, ""),
        (-1.0, "derived") if "DERIVED" in image_type else (0.5, "original"),
        (-2.0, "lossy") if "lossy_compression" in series.codes else (0.0, ""),
        _kernel(str(facts.get("kernel", "")), want),
        _contrast(facts.get("contrast"), list(facts.get("phase_hints", [])), want),
    ]


def _kernel(name: str, want: Want) -> tuple[float, str]:
    first = name.split("\\", maxsplit=1)[0].strip()
    kind = "sharp" if _SHARP.search(first) else "soft" if _SOFT.search(first) else ""
    if not kind:
        return 0.0, ""
    if want.kernel is None:
        return 0.0, f"{kind} kernel ({first})"
    return (1.5 if kind == want.kernel else -1.5), f"{kind} kernel ({first})"


def _contrast(tagged: bool | None, hints: list[str], want: Want) -> tuple[float, str]:
    has = tagged if tagged is not None else any(hint != "native" for hint in hints) if hints else None
    words = f"phase {' or '.join(hints)}" if hints else "contrast" if has else "no contrast" if has is False else ""
    points = 0.0
    if want.contrast is not None and has is not None:
        points += 3.0 if has == want.contrast else -3.0
    if want.phase is not None and hints:
        points += 3.0 if want.phase in hints else -1.0
    return points, words
