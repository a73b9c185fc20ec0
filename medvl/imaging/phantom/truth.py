"""What is true of one phantom patient: anatomy, findings, outcome. Everything else (images, reports) is made from this.

Lengths are mm, sides are the patient's own, angles degrees. Attributes that do not apply are None, never a made-up value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal

Side = Literal["left", "right"]
Pole = Literal["upper", "interpolar", "lower"]
Phase = Literal["noncontrast", "arterial", "portal_venous", "delayed"]
Grade = Literal["none", "mild", "moderate", "severe"]


@dataclass(frozen=True)
class Mass:
    """A renal mass, solid unless `necrosis` or `calcification` add to it; cystic masses are solid nodules in a fluid lesion.

    Args:
        size_mm: largest diameter.
        pole: where along the kidney its centre lies.
        exophytic_fraction: share of the diameter outside the kidney's outline, 0 to 1.
        composition: solid, or cystic with enhancing wall and nodule.
        necrosis: a fluid-like core.
        calcification: coarse calcium inside.
        enhancement: avid (clear cell like) or mild (papillary like).
    """

    size_mm: float
    pole: Pole
    exophytic_fraction: float
    composition: Literal["solid", "cystic"]
    necrosis: bool
    calcification: bool
    enhancement: Literal["avid", "mild"]

    @property
    def exophytic(self) -> bool:
        """Half or more of it lies outside the kidney (the R.E.N.A.L. cut)."""
        return self.exophytic_fraction >= 0.5


@dataclass(frozen=True)
class Cyst:
    """A simple cyst: water density, no enhancement. Largest diameter in mm."""

    size_mm: float
    pole: Pole


@dataclass(frozen=True)
class Stone:
    """A calculus. Largest diameter in mm."""

    size_mm: float
    pole: Pole


@dataclass(frozen=True)
class Kidney:
    """One kidney and what is in it; at most one mass, any number of cysts and stones."""

    side: Side
    length_mm: float
    mass: Mass | None
    cysts: tuple[Cyst, ...]
    stones: tuple[Stone, ...]
    hydronephrosis: Grade


@dataclass(frozen=True)
class Chest:
    """Heart, thoracic aorta and pleura.

    Args:
        heart_width_mm: greatest transverse diameter; `cardiothoracic_ratio` is it over the inner chest width.
        ascending_aorta_mm: diameter; 45 mm and more is an aneurysm here.
        coronary_calcification: none, mild, moderate or severe.
        pericardial_effusion_mm: greatest thickness, 0 for none.
        effusion_left_mm, effusion_right_mm: depth of pleural fluid, 0 for none.
    """

    heart_width_mm: float
    cardiothoracic_ratio: float
    ascending_aorta_mm: float
    coronary_calcification: Grade
    pericardial_effusion_mm: float
    effusion_left_mm: float
    effusion_right_mm: float

    @property
    def cardiomegaly(self) -> bool:
        """Cardiothoracic ratio of 0.55 or more (axial CT, supine)."""
        return self.cardiothoracic_ratio >= 0.55

    @property
    def aneurysm(self) -> bool:
        """Ascending aorta of 45 mm or more."""
        return self.ascending_aorta_mm >= 45.0


@dataclass(frozen=True)
class Scanner:
    """How the patient is imaged: voxel sizes in mm, kernel, noise in HU, dose-independent facts.

    Args:
        spacing_dhw_mm: voxel size along slice, row, column; thickness_mm: slice thickness (slab average).
        kernel_mm: standard deviation of the in-plane blur.
        noise_hu: standard deviation after the blur.
        coverage: what the scan reaches: chest, abdomen or both.
        feet_first: stored slice order runs from foot to head or the other way; position FFS instead of HFS.
        phase: contrast timing; late: share of the way from it to the phase that follows, 0 to 1.
        model, kernel, protocol: what the files say; an empty kernel or protocol is named by what it does.
        kvp: tube voltage; iodine: how much more contrast medium raises HU than at 120 kV.
        hu_offset: error of the calibration in HU; edge: how much the kernel overshoots at edges, 0 for none.
        grain: size of the noise's grain over that of the kernel blur.
    """

    spacing_dhw_mm: tuple[float, float, float]
    thickness_mm: float
    kernel_mm: float
    noise_hu: float
    coverage: Literal["chest", "abdomen", "chest_abdomen"]
    feet_first: bool
    phase: Phase
    manufacturer: str
    model: str = "Phantom CT"
    kernel: str = ""
    protocol: str = ""
    kvp: int = 120
    iodine: float = 1.0
    late: float = 0.0
    hu_offset: float = 0.0
    edge: float = 0.0
    grain: float = 0.8


@dataclass(frozen=True)
class Patient:
    """One phantom patient: the whole truth, from a cohort seed and a number.

    Args:
        patient_id: `PH000001`-like, unique in a cohort; seed: the generator seed all of it came from.
        age_years, sex: clinical covariates; bmi: body-mass index, sets body size.
        liver_mm, spleen_mm: craniocaudal lengths; `fatty_liver`: liver 20 HU or more below the spleen.
        time_days, event: survival from the scan, right-censored; true_risk: log hazard ratio it was drawn from.
        site: hospital; voice: how its reports are worded; study_date (YYYYMMDD) and accession number of the scan.
    """

    patient_id: str
    seed: int
    age_years: float
    sex: Literal["F", "M"]
    bmi: float
    kidney_left: Kidney
    kidney_right: Kidney
    chest: Chest
    liver_mm: float
    spleen_mm: float
    fatty_liver: bool
    scanner: Scanner
    true_risk: float
    time_days: float
    event: bool
    site: str = "demo"
    voice: str = "plain"
    study_date: str = "20200102"
    accession: str = ""

    @property
    def number(self) -> int:
        """Its number in the cohort."""
        return int(self.patient_id[2:])

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what only other hospitals have is left out for the demo site."""
        values = asdict(self)
        if self.site == "demo":
            for part, kind in ((values, Patient), (values["scanner"], Scanner)):
                for name in _with_default(kind):
                    del part[name]
        return values


def patient_from(values: Mapping[str, Any]) -> Patient:
    """The patient that `Patient.as_dict` told of, from JSON too; keys that are no part of a patient are ignored."""
    parts = {
        "kidney_left": _kidney(values["kidney_left"]),
        "kidney_right": _kidney(values["kidney_right"]),
        "chest": Chest(**values["chest"]),
        "scanner": Scanner(**{**values["scanner"], "spacing_dhw_mm": tuple(values["scanner"]["spacing_dhw_mm"])}),
    }
    return Patient(**{f.name: values[f.name] for f in fields(Patient) if f.name in values} | parts)


def _kidney(values: Mapping[str, Any]) -> Kidney:
    return Kidney(
        **{
            **values,
            "mass": Mass(**values["mass"]) if values["mass"] else None,
            "cysts": tuple(Cyst(**cyst) for cyst in values["cysts"]),
            "stones": tuple(Stone(**stone) for stone in values["stones"]),
        }
    )


def _with_default(kind: type[Patient | Scanner]) -> list[str]:
    return [f.name for f in fields(kind) if f.default is not MISSING]
