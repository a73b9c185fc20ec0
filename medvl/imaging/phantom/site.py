"""What one hospital's phantoms are like: people, findings, scanners, contrast, follow-up, wording. Defaults are the demo site.

Other sites are YAML files that state where they differ (`configs/phantom/`). A number pair is (mean, standard deviation) or
(low, high), as its name says; shares go in the order of the values they are for.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medvl.errors import ConfigError, did_you_mean

Pair = tuple[float, float]
Share = Annotated[float, Field(ge=0, le=1)]
Four = tuple[Share, Share, Share, Share]
Three = tuple[Share, Share, Share]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class People(_Strict):
    """Who is examined: means with standard deviations, and the share of women."""

    age_years: Pair = (62, 12)
    female: Share = 0.42
    bmi: Pair = (26.5, 4.0)


class Findings(_Strict):
    """How common findings are and how large; `_log_mm` is mean and spread of the logarithm of the size in mm.

    Args:
        cysts, stones: shares of kidneys with none, one, two (and three) of them.
        hydronephrosis, coronary: shares of none, mild, moderate, severe.
        mass, cardiomegaly, aneurysm, pericardial, effusion (a side), fatty_liver: shares; avid: of the masses.
        heart_ratio, aneurysm_mm: mean and spread in those who have it; pericardial_mm, effusion_mm: ranges.
    """

    mass: Share = 0.24
    mass_log_mm: Pair = (3.55, 0.5)
    avid: Share = 0.65
    cysts: Four = (0.68, 0.22, 0.07, 0.03)
    stones: Three = (0.80, 0.15, 0.05)
    stone_log_mm: Pair = (1.95, 0.4)
    hydronephrosis: Four = (0.82, 0.07, 0.07, 0.04)
    cardiomegaly: Share = 0.25
    aneurysm: Share = 0.2
    coronary: Four = (0.58, 0.16, 0.14, 0.12)
    heart_ratio: Pair = (0.60, 0.03)
    aneurysm_mm: Pair = (49, 3.0)
    pericardial: Share = 0.16
    pericardial_mm: Pair = (6, 24)
    effusion: Share = 0.18
    effusion_mm: Pair = (12, 60)
    fatty_liver: Share = 0.2


class Kernel(_Strict):
    """A reconstruction kernel: blur in mm and the range of its noise in HU; `edge` and `grain` as in `truth.Scanner`."""

    name: str
    blur_mm: float = Field(ge=0)
    noise_hu: Pair
    edge: float = Field(default=0.0, ge=0, le=2)
    grain: float = Field(default=0.8, gt=0)


class Machines(_Strict):
    """The scanners and how they are used; what `truth.Scanner` says, as ranges and shares.

    Args:
        spacing_mm, spacing_shares: distances of slices; in_plane_mm: range of the pixel size.
        overlap, overlap_shares: slice thickness over distance.
        coverage: shares of chest with abdomen, abdomen, chest; phases: of noncontrast, arterial, portal venous, delayed.
        protocols: the hospital's own words for the phases, in that order.
    """

    manufacturers: tuple[str, ...] = ("Phantom Systems A", "Phantom Systems B", "Phantom Systems C")
    model: str = "Phantom CT"
    kernels: tuple[Kernel, ...] = (
        Kernel(name="soft", blur_mm=0.9, noise_hu=(6.0, 14.0)),
        Kernel(name="standard", blur_mm=0.7, noise_hu=(8.0, 18.0)),
        Kernel(name="sharp", blur_mm=0.45, noise_hu=(14.0, 28.0)),
    )
    spacing_mm: tuple[float, ...] = (2.0, 2.5, 3.0, 4.0, 5.0)
    spacing_shares: tuple[Share, ...] = (0.15, 0.3, 0.3, 0.1, 0.15)
    in_plane_mm: Pair = (1.5, 2.2)
    overlap: tuple[float, ...] = (1.0, 1.25, 1.5)
    overlap_shares: tuple[Share, ...] = (0.6, 0.25, 0.15)
    coverage: Three = (0.66, 0.22, 0.12)
    phases: Four = (0.14, 0.2, 0.5, 0.16)
    protocols: tuple[str, str, str, str] = ("", "", "", "")
    feet_first: Share = 0.25
    kvp: int = Field(default=120, ge=70, le=150)
    iodine: float = Field(default=1.0, gt=0)
    late: tuple[Share, Share] = (0.0, 0.0)
    hu_offset: Pair = (0.0, 0.0)

    @model_validator(mode="after")
    def _paired(self) -> Self:
        for values, shares in ((self.spacing_mm, self.spacing_shares), (self.overlap, self.overlap_shares)):
            if len(values) != len(shares):
                raise ValueError(f"{len(values)} values but {len(shares)} shares: {list(values)}, {list(shares)}")
        if len({kernel.blur_mm for kernel in self.kernels}) < len(self.kernels):
            raise ValueError("two kernels have the same blur_mm, by which they are told apart")
        return self


class FollowUp(_Strict):
    """Survival: days at which follow-up ends (range), Weibull scale of the baseline, share lost to follow-up a year."""

    days: Pair = (700.0, 3200.0)
    scale_days: float = Field(default=4200.0, gt=0)
    lost_per_year: float = Field(default=0.0, ge=0)


class Site(_Strict):
    """One hospital.

    Args:
        name: of the hospital; other names give other patients for the same seed.
        summary: one line for people.
        prefix: two letters before a patient's number.
        voice: how reports are worded; years: of the examinations, first and last.
    """

    name: str = Field(default="demo", pattern=r"^[a-z][a-z0-9-]*$")
    summary: str = "The hospital that the bundled model was trained on"
    prefix: str = Field(default="PH", pattern="^[A-Z]{2}$")
    voice: Literal["plain", "telegraphic", "dictated"] = "plain"
    years: tuple[int, int] = (2020, 2020)
    people: People = People()
    findings: Findings = Findings()
    machines: Machines = Machines()
    follow_up: FollowUp = FollowUp()

    @model_validator(mode="after")
    def _sums(self) -> Self:
        f, m = self.findings, self.machines
        shares = {"cysts": f.cysts, "stones": f.stones, "hydronephrosis": f.hydronephrosis, "coronary": f.coronary}
        shares |= {"coverage": m.coverage, "phases": m.phases, "spacing_shares": m.spacing_shares}
        for name, values in (shares | {"overlap_shares": m.overlap_shares}).items():
            if abs(sum(values) - 1) > 1e-6:
                raise ValueError(f"the shares of {name} add up to {sum(values):g}, not 1")
        if self.name == "demo" and self != Site.model_construct():
            raise ValueError("demo is the name of the bundled model's hospital; give another name")
        return self

    @property
    def digest(self) -> str:
        """Hash of everything that it says."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


DEMO = Site()


def sites() -> dict[str, Path]:
    """Built-in sites by name, beside `demo`."""
    folder = Path(str(files("medvl_configs"))) / "phantom"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


@cache
def load_site(name: str) -> Site:
    """A site by name, or from a YAML file.

    Raises:
        ConfigError: there is none of that name, or the file is not a site.
    """
    if name == DEMO.name:
        return DEMO
    path = sites().get(name, Path(name))
    if not path.is_file():
        known = [DEMO.name, *sites()]
        raise ConfigError(f"no site called {name} and no such file; {did_you_mean(name, known)}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Site.model_validate(values)
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a site: {error}") from error
