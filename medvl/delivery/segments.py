"""Heat maps as DICOM SEG: one fractional segment a finding, on the region's own grid, one object a region.

A heat map is a weight of evidence between 0 and 1, not an outline and not a probability that a voxel is ill; the segment's label
and description say so. PS3.3 A.51 knows two fractional types, and PROBABILITY is the nearer one.
"""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom import Dataset

from medvl.delivery.codes import ABNORMAL, LEARNED, finding_code, finding_site
from medvl.delivery.stamp import MANUFACTURER, Job, common, finish
from medvl.delivery.told import Answer
from medvl.text.prompts import FindingList

LEVELS = 255
_COLOURS = ((230, 97, 1), (94, 60, 153), (0, 128, 128), (178, 24, 43), (33, 102, 172), (120, 100, 20))


def regions_with_heat(job: Job) -> list[tuple[str, list[Answer]]]:
    """Regions that have heat maps, with the answers that do, in the order of the record."""
    found: dict[str, list[Answer]] = {}
    for answer in job.told.answers:
        if answer.heat is not None:
            found.setdefault(answer.region, []).append(answer)
    return list(found.items())


def quantised(answers: Sequence[Answer]) -> NDArray[np.uint8]:
    """(D, H, W, S) what the object stores for the heat maps of one region: 0 to 255 for 0 to 1."""
    heats = [answer.heat for answer in answers if answer.heat is not None]
    return np.stack([np.around(heat * np.float32(LEVELS)).astype(np.uint8) for heat in heats], axis=-1)


def segmentations(job: Job, findings: FindingList | None) -> list[Dataset]:
    """A segmentation for each region with heat maps; none where the source names no frame of reference."""
    if job.source.frame_of_reference is None:
        return []
    found = regions_with_heat(job)
    return [_segmentation(job, answers, number, findings) for number, (_, answers) in enumerate(found, 1)]


def _segmentation(job: Job, answers: Sequence[Answer], number: int, findings: FindingList | None) -> Dataset:
    grid = answers[0].grid
    assert grid is not None  # noqa: S101 - answers with a heat map have its grid
    heat = np.stack([answer.heat for answer in answers if answer.heat is not None], axis=-1)
    volume = hd.Volume(
        heat,
        grid.affine_lps,
        coordinate_system="PATIENT",
        frame_of_reference_uid=job.source.frame_of_reference,
        channels={"SegmentNumber": list(range(1, len(answers) + 1))},
    )
    made = hd.seg.Segmentation(
        source_images=_sources(job),
        pixel_array=volume,
        segmentation_type=hd.seg.SegmentationTypeValues.FRACTIONAL,
        fractional_type=hd.seg.SegmentationFractionalTypeValues.PROBABILITY,
        max_fractional_value=LEVELS,
        segment_descriptions=[_described(job, answer, k, findings) for k, answer in enumerate(answers, 1)],
        omit_empty_frames=False,
        content_label="HEATMAP",
        content_description="Evidence heat maps; research use only",
        **common(job, "seg", answers[0].region, number=number),
    )
    for item in made.SegmentSequence:
        item.SegmentDescription = "Where the model looked: weight of evidence, 0 to 1. No outline, no probability of disease."
    finish(made, job)
    return made


def _sources(job: Job) -> list[Dataset]:
    """The images that are referred to: all single-frame images, or one multi-frame image."""
    images = list(job.source.images)
    return images[:1] if "NumberOfFrames" in images[0] else images


def _described(job: Job, answer: Answer, number: int, findings: FindingList | None) -> hd.seg.SegmentDescription:
    site, side = finding_site(answer.key, answer.region, findings)
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"{answer.label}, {answer.place}: heat map"[:64],
        segmented_property_category=ABNORMAL,
        segmented_property_type=finding_code(answer.key, answer.label, findings),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="medvl",
            family=LEARNED,
            version=job.told.version,
            source=MANUFACTURER,
            parameters={"bundle": job.told.bundle, "sha256": job.told.bundle_sha256},
        ),
        tracking_uid=job.tracking_uid(answer.name),
        tracking_id=answer.name,
        anatomic_regions=[site],
        display_color=hd.color.CIELabColor.from_rgb(*_COLOURS[(number - 1) % len(_COLOURS)]),
    )
    if side is not None:
        description.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [CodedConcept.from_code(side)]
    return description
