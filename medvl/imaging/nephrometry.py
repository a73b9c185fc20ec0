"""R.E.N.A.L. nephrometry (Kutikov and Uzzo, J Urol 2009) computed from a mask of one kidney and its tumour.

A reader judges R.E.N.A.L. on images, where the renal sinus, the collecting system and the outline that the kidney had before the
tumour can be seen. Masks of kidney and tumour hold neither: the outline and the sinus here are **proxies**, defined in
`docs/explanation/nephrometry.md` with how stable they are. A part that cannot be computed is None with its reason, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from medvl.imaging.kidney_anatomy import DEFAULT, Anatomy, Rules, anatomy
from medvl.imaging.mask_shape import KIDNEY, TUMOUR, KidneyMask, mask_shape, parts
from medvl.renal_score import RenalScore, growth_class, nearness_class, no_score, polar_class, radius_class, score_of

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Nephrometry:
    """R.E.N.A.L. of the largest tumour of one kidney; what is not known is None.

    Args:
        score: points, total and reason, as read from text; `hilar` is always None, since vessels are not in the mask.
        classes: class of each attribute of the kidney ontology's dictionary.
        unknown: attribute to the reason why it has no class.
        diameter_mm: `MaskShape.diameter_mm` of the tumour.
        share_outside: share of the tumour outside the kidney's outline.
        sinus_mm: least distance from the tumour's surface to the sinus proxy, 0 where they touch.
        share_anterior: share of the tumour in front of the kidney's mid-coronal plane.
        share_between: share of the tumour between the polar lines.
        crosses_midline: part of the tumour lies on either side of the middle of the kidney's long axis.
        n_tumours: components of the tumour label; the largest is scored.
        kidney_ml, sinus_ml: parenchyma left, and the sinus proxy.
    """

    score: RenalScore
    classes: Mapping[str, str | None]
    unknown: Mapping[str, str]
    diameter_mm: float | None = None
    share_outside: float | None = None
    sinus_mm: float | None = None
    share_anterior: float | None = None
    share_between: float | None = None
    crosses_midline: bool | None = None
    n_tumours: int = 0
    kidney_ml: float = 0.0
    sinus_ml: float | None = None


def nephrometry(kidney: KidneyMask, rules: Rules = DEFAULT) -> Nephrometry:
    """R.E.N.A.L. parts, classes and points of the largest tumour of `kidney`, with a reason for each that is missing."""
    tumours = parts(kidney.labels == TUMOUR, kidney.geometry)
    kidney_ml = float((kidney.labels == KIDNEY).sum()) * kidney.geometry.voxel_ml
    if not tumours:
        return Nephrometry(no_score("no tumour is in the mask"), {}, {}, kidney_ml=kidney_ml)
    unknown = _unfit(kidney, kidney_ml, rules)
    diameter = None if "renal_radius" in unknown else mask_shape(tumours[0], kidney.geometry).diameter_mm
    classes: dict[str, str | None] = {"renal_radius": None if diameter is None else radius_class(diameter)}
    found: dict[str, float | bool | None] = {}
    if "mass_growth" not in unknown:
        found = _measure(anatomy(kidney, tumours[0], rules), rules, unknown)
        classes |= _classes(found, rules)
    score = score_of(classes, None, "the mask does not give")
    return Nephrometry(score, classes, unknown, diameter, n_tumours=len(tumours), kidney_ml=kidney_ml, **found)  # type: ignore[arg-type]


def _unfit(kidney: KidneyMask, kidney_ml: float, rules: Rules) -> dict[str, str]:
    """Attributes that this mask cannot give, with the reason."""
    rest = ("mass_growth", "mass_nearness", "mass_face", "mass_polar_lines")
    if kidney.tumour_touches_edge:
        return dict.fromkeys(("renal_radius", *rest), "the tumour reaches the edge of the image")
    if kidney.touches_edge:
        return dict.fromkeys(rest, "the kidney reaches the edge of the image")
    if kidney.joined:
        return dict.fromkeys(rest, "the kidneys are joined, by a bridge or by the tumour")
    if kidney_ml < rules.min_kidney_ml:
        return dict.fromkeys(rest, f"{kidney_ml:.0f} mL of kidney are left, fewer than {rules.min_kidney_ml:g}")
    return {}


def _measure(found: Anatomy, rules: Rules, unknown: dict[str, str]) -> dict[str, float | bool | None]:
    """The measured fields of `Nephrometry`; what is missing is added to `unknown`."""
    points = found.geometry.to_lps(np.argwhere(found.tumour)) - found.center_lps
    up, _, front = (points @ axis for axis in found.axes)
    shape = found.geometry.to_lps(np.argwhere(found.outline)) - found.center_lps
    middle = float(np.mean([(shape @ found.axes[0]).min(), (shape @ found.axes[0]).max()]))
    got: dict[str, float | bool | None] = {"share_outside": 1 - float(found.outline[found.tumour].mean())}
    if found.elongation >= rules.min_elongation:
        got["share_anterior"] = float((front > 0).mean())
        above = float((up > middle).mean())
        got["crosses_midline"] = min(above, 1 - above) > rules.negligible
    else:
        unknown |= dict.fromkeys(("mass_face", "mass_polar_lines"), f"the kidney has no long axis ({found.elongation:.2f})")
    if found.sinus is None:
        why = f"no concavity of {rules.min_sinus_ml:g} mL is left to take for the sinus"
        return got | _also(unknown, {"mass_nearness": why, "mass_polar_lines": why})
    got["sinus_ml"] = float(found.sinus.sum()) * found.geometry.voxel_ml
    reach = distance_transform_edt(~found.sinus)[found.tumour].min() - 1
    got["sinus_mm"] = max(0.0, float(reach)) * rules.grid_mm
    if "mass_polar_lines" not in unknown:
        along = (found.geometry.to_lps(np.argwhere(found.sinus)) - found.center_lps) @ found.axes[0]
        low, high = np.quantile(along, [rules.polar_tail, 1 - rules.polar_tail])
        got["share_between"] = float(((up >= low) & (up <= high)).mean())
    return got


def _also(unknown: dict[str, str], more: dict[str, str]) -> dict[str, float | bool | None]:
    """Nothing measured; `more` reasons added where none stands yet."""
    for name, why in more.items():
        unknown.setdefault(name, why)
    return {}


def _classes(found: Mapping[str, float | bool | None], rules: Rules) -> dict[str, str | None]:
    """Class of each attribute but the radius from the measured fields."""
    outside, sinus, front, between = (found.get(k) for k in ("share_outside", "sinus_mm", "share_anterior", "share_between"))
    face = None
    if front is not None:
        face = "anterior" if front >= rules.face_share else "posterior" if front <= 1 - rules.face_share else "neither"
    return {
        "mass_growth": None if outside is None else growth_class(outside, rules.endophytic),
        "mass_nearness": None if sinus is None else nearness_class(sinus),
        "mass_face": face,
        "mass_polar_lines": None
        if between is None
        else polar_class(between, bool(found.get("crosses_midline")), rules.negligible),
    }
