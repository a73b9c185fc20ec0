"""What every object has in common: new series, times, equipment, identity, and the file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydicom import Dataset

from medvl.delivery.codes import scheme_item
from medvl.delivery.source import Source
from medvl.delivery.told import Told
from medvl.delivery.uids import uid_of

SERIES = {
    "sr": (9801, "medvl findings"),
    "seg": (9802, "medvl heat maps"),
    "page": (9803, "medvl summary"),
    "pdf": (9804, "medvl report"),
    "review": (9805, "medvl reviewed findings"),
}
MANUFACTURER = "medvl (open source)"


@dataclass(frozen=True, eq=False)
class Job:
    """What objects are made of.

    Args:
        source: the series that the answers are about.
        told: the answers.
        made_at: when the objects are made; naive, or in any time zone.
    """

    source: Source
    told: Told
    made_at: datetime

    def uid(self, kind: str, *parts: str) -> str:
        """A UID of an object of this study: the same for the same series, bundle, answers and way of taking identity out."""
        told, hidden = self.told, self.source.identity.hidden
        return uid_of(kind, self.source.series_uid, told.bundle_sha256, told.content, *hidden, *parts)

    def tracking_uid(self, name: str) -> str:
        """UID of one answer, shared by the report and the heat maps."""
        return self.uid("answer", name)

    @property
    def local(self) -> datetime:
        """When the objects are made, in the source's time zone."""
        return self.source.identity.local(self.made_at)

    def words(self) -> list[str]:
        """Everything that the objects say in words that medvl did not choose."""
        told = self.told
        said = [word for a in told.answers for word in (a.label, a.region, *(r.message for r in a.reasons))]
        said += [told.bundle, told.asked or "", *(str(region["name"]) for region in told.regions)]
        return [*said, str(told.risk.get("endpoint", "")) if told.risk else ""]


def common(job: Job, kind: str, *parts: str, number: int = 1) -> dict[str, Any]:
    """Arguments that highdicom's objects share: new series and instance, equipment, times and research use."""
    series_number, description = SERIES[kind]
    return {
        "series_instance_uid": job.uid(f"{kind} series"),
        "series_number": series_number,
        "sop_instance_uid": job.uid(kind, *parts),
        "instance_number": number,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": "medvl",
        "software_versions": [job.told.software, f"{job.told.bundle[:40]} {job.told.bundle_sha256[:12]}"],
        "device_serial_number": job.told.bundle_sha256,
        "series_description": f"{description} (research use only)",
        "coding_schemes": [scheme_item()],
    }


def bare(job: Job, kind: str) -> dict[str, Any]:
    """Arguments of an object that is built from highdicom's root class; `finish` fills in the patient."""
    return {"study_instance_uid": job.source.study_uid, **common(job, kind)}


def reference(image: Dataset) -> Dataset:
    """An item that refers to an image."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


def finish(made: Dataset, job: Job) -> None:
    """Put patient, study, character set and times on an object: everything that a library would take from the clock."""
    identity = job.source.identity
    identity.put_on(made, identity.charset_for(job.words()))
    if "PixelData" in made:
        made["PixelData"].VR = "OB"  # eight bits; nothing chooses it when elements are written as bytes
    day, clock = job.local.strftime("%Y%m%d"), job.local.strftime("%H%M%S")
    for name in ("InstanceCreation", "Content", "Series"):
        setattr(made, f"{name}Date", day)
        setattr(made, f"{name}Time", clock)
    for item in made.get("ContributingEquipmentSequence", []):
        item.ContributionDateTime = day + clock
    for name in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in made.get(name, []):
            item.DimensionOrganizationUID = job.uid("dimensions", str(made.SOPInstanceUID))


def save(made: Dataset, path: Path) -> None:
    """Write an object as a DICOM file in explicit little endian or as its own transfer syntax says."""
    made.save_as(path, enforce_file_format=True)
