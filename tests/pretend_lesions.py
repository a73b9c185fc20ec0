"""Made-up lesions whose embeddings show their severity, with labels of some of the ten tasks."""

import numpy as np
import pandas as pd

from medvl.evaluation.embedded import Embedded

WIDTH = 8


def embedded(n: int, seed: int, start: int, phase: str = "arterial", noise: float = 0.5, **source: str) -> Embedded:
    """Two kidneys a patient; the first value of an embedding is the lesion's latent severity, seen through noise."""
    latent = np.random.default_rng(seed).normal(0, 1, 2 * n)
    rng = np.random.default_rng([seed, len(phase)])
    x = rng.normal(0, 1, (2 * n, WIDTH)).astype(np.float32)
    x[:, 0] = latent + noise * rng.normal(0, 1, 2 * n)
    who = [f"P{start + i:04d}" for i in range(n) for _ in range(2)]
    reason = np.where(np.arange(2 * n) % 17 == 3, "region_incomplete", "")
    x[reason != ""] = np.nan
    rows = pd.DataFrame(
        {"patient_id": who, "region": ["kidney_left", "kidney_right"] * n, "kind": "kidney", "report": "", "reason": reason}
    )
    people = np.random.default_rng([seed, 7])
    patients = pd.DataFrame(
        {"age_years": people.uniform(40, 80, n), "sex": people.choice(["F", "M"], n), "phase": phase}, index=dict.fromkeys(who)
    )
    none = np.zeros((2 * n, 0), np.int8)
    return Embedded(rows, patients, x, x, x, (), none.astype(np.float32), none, none, {"model_sha256": "m", **source})


def labels(n: int, seed: int, start: int) -> pd.DataFrame:
    """One lesion a patient, on the left, but every fifth patient has one on the right too."""
    latent = np.random.default_rng(seed).normal(0, 1, 2 * n)
    rng = np.random.default_rng([seed, 3])
    rows = []
    for i in range(n):
        death = rng.exponential(1000 * np.exp(-1.5 * latent[2 * i]))
        for k in range(2 if i % 5 == 0 else 1):
            z = latent[2 * i + k]
            rows.append(
                {
                    "patient_id": f"P{start + i:04d}",
                    "region": ("kidney_left", "kidney_right")[k],
                    "renal_radius": ("at_most_4_cm", "between_4_and_7_cm", "at_least_7_cm")[int(z > -0.4) + int(z > 0.6)],
                    "mass_polar_lines": ("outside", "between")[int(z + rng.normal() > 0)],
                    "malignancy": None if i % 9 == 0 else ("benign", "malignant")[int(z + 0.5 * rng.normal() > -0.5)],
                    "mass_face": "anterior",
                    "size_mm": 40 + 15 * z + rng.normal(),
                    "os_days": min(death, 1500.0) if i % 11 else np.nan,
                    "os_event": int(death <= 1500.0),
                    "dss_days": min(death, 1500.0),
                    "dss_event": int(death <= 3.0),
                }
            )
    return pd.DataFrame(rows)


SIZES = {"train": (220, 1, 0), "validation": (90, 2, 1000), "test": (110, 3, 2000)}


def cohorts(*phases: str, noise: float = 0.5, **source: str) -> dict[str, list[Embedded]]:
    return {
        name: [embedded(*size, phase, noise, split=name, **source) for phase in phases or ("arterial",)]
        for name, size in SIZES.items()
    }


LABELS = pd.concat([labels(*size) for size in SIZES.values()], ignore_index=True)
