"""Answers as a DICOM structured report: TID 1500 in a Comprehensive 3D SR, unverified and preliminary.

Each answer is a measurement group: TID 1410 with the peak of its heat map as a point in the patient (SCOORD3D) where there is
one, else TID 1501. The verdict is (121052, DCM, "Presence of property"), the calibrated probability (111012, DCM, "Certainty of
Finding") in percent, as CAD reports write it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from highdicom import sr
from pydicom import Dataset
from pydicom.sr.coding import Code as Concept

from medvl.delivery import codes
from medvl.delivery.codes import finding_code, finding_site, private
from medvl.delivery.stamp import MANUFACTURER, Job, common, finish
from medvl.delivery.told import Answer
from medvl.delivery.uids import uid_of
from medvl.records import Reason
from medvl.text.prompts import FindingList

Group = sr.MeasurementsAndQualitativeEvaluations | sr.PlanarROIMeasurementsAndQualitativeEvaluations
_CONTAINS = sr.RelationshipTypeValues.CONTAINS
_ACQUISITION = sr.RelationshipTypeValues.HAS_ACQ_CONTEXT


def structured_report(job: Job, findings: FindingList | None, segmentations: Sequence[Dataset]) -> Dataset:
    """The report.

    Args:
        job: what is told, and of which series.
        findings: the list that was asked, for its codes; None for private codes.
        segmentations: of the heat maps, listed as evidence beside the images.
    """
    groups = [_group(job, answer, findings) for answer in job.told.answers]
    if job.told.risk is not None:
        groups.append(_risk(job))
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=_observer(job)),
        procedure_reported=codes.CT_PROCEDURE,
        title=codes.REPORT_TITLE,
        imaging_measurements=groups or [_nothing(job)],
    )
    root = content[0]
    position = len(root.ContentSequence) - 1  # before the measurements, which come last
    root.ContentSequence.insert(position, _comment(_statement(job)))
    root.ContentSequence.insert(position + 1, _library(job))
    has_seg = ("with heat maps",) if segmentations else ()
    made = sr.Comprehensive3DSR(
        evidence=[*job.source.images, *segmentations],
        content=root,
        is_complete=True,
        is_final=False,
        is_verified=False,
        **common(job, "sr", *has_seg),
    )
    finish(made, job)
    return made


def _statement(job: Job) -> str:
    told = job.told
    asked = f" Findings list: {told.asked}." if told.asked else ""
    return (
        f"RESEARCH USE ONLY. {told.research_use} Made by software without review by a physician. Model: {told.bundle}, "
        f"SHA-256 {told.bundle_sha256}.{asked} Certainty is a calibrated "
        "probability of presence; undecided means that no verdict is given."
    )


def _observer(job: Job) -> sr.ObserverContext:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=uid_of("device", job.told.software, job.told.bundle_sha256),
        name="medvl",
        manufacturer_name=MANUFACTURER,
        model_name=f"medvl {job.told.version}, {job.told.bundle}"[:64],
    )
    return sr.ObserverContext(observer_type=sr.CodedConcept.from_code(codes.DEVICE), observer_identifying_attributes=device)


def _algorithm(job: Job) -> sr.AlgorithmIdentification:
    parameters = [f"bundle {job.told.bundle}", f"bundle sha256 {job.told.bundle_sha256}"]
    return sr.AlgorithmIdentification("medvl", job.told.version, parameters, family=codes.LEARNED, manufacturer=MANUFACTURER)


def _library(job: Job) -> sr.ContainerContentItem:
    """The source images, TID 1600: what they share once, then a reference to each."""
    group = sr.ContainerContentItem(codes.LIBRARY_GROUP, relationship_type=_CONTAINS)
    group.ContentSequence = sr.ContentSequence()
    group.ContentSequence.append(sr.CodeContentItem(codes.MODALITY, codes.CT, _ACQUISITION))
    if job.source.frame_of_reference is not None:
        group.ContentSequence.append(sr.UIDRefContentItem(codes.FRAME_OF_REFERENCE, job.source.frame_of_reference, _ACQUISITION))
    for image in job.source.images:
        group.ContentSequence.append(
            sr.ImageContentItem(codes.SOURCE, image.SOPClassUID, image.SOPInstanceUID, relationship_type=_CONTAINS)
        )
    library = sr.ContainerContentItem(codes.LIBRARY, relationship_type=_CONTAINS)
    library.ContentSequence = sr.ContentSequence([group])
    return library


def _group(job: Job, answer: Answer, findings: FindingList | None) -> Group:
    site, side = finding_site(answer.key, answer.region, findings)
    evaluations = [sr.QualitativeEvaluation(codes.PRESENCE, codes.VERDICTS[answer.verdict])]
    evaluations += [sr.QualitativeEvaluation(codes.UNDECIDED_BECAUSE, _reason(r)) for r in answer.reasons]
    shared: dict[str, Any] = {
        "tracking_identifier": sr.TrackingIdentifier(uid=job.tracking_uid(answer.name), identifier=answer.name),
        "finding_type": finding_code(answer.key, answer.label, findings),
        "finding_sites": [sr.FindingSite(site, laterality=side)],
        "algorithm_id": _algorithm(job),
        "measurements": _measurements(answer) or None,
        "qualitative_evaluations": evaluations,
    }
    group: Group
    if answer.peak_lps is not None and job.source.frame_of_reference is not None:
        point = sr.ImageRegion3D("POINT", np.array([answer.peak_lps]), job.source.frame_of_reference)
        group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=point, **shared)
    else:
        group = sr.MeasurementsAndQualitativeEvaluations(**shared)
    for text in _sentences(answer):
        group[0].ContentSequence.append(_comment(text))
    return group


def _reason(reason: Reason) -> Concept:
    return private(reason.code, reason.code.replace("_", " ").capitalize())


def _sentences(answer: Answer) -> list[str]:
    said = [f"{answer.label}, {answer.place}: {answer.verdict}."]
    said += [f"Undecided because {reason.code}: {reason.message}" for reason in answer.reasons]
    return said


def _measurements(answer: Answer) -> list[sr.Measurement]:
    """The numbers of an answer that are known; probabilities as percent."""
    low, high = answer.interval or (None, None)
    after, control = (answer.deletion["after"], answer.deletion["control"]) if answer.deletion else (None, None)
    percents = (
        (codes.CERTAINTY, answer.score),
        (codes.INTERVAL_FROM, low),
        (codes.INTERVAL_TO, high),
        (codes.THRESHOLD, answer.threshold),
        (codes.UNDECIDED_FROM, answer.low),
        (codes.UNDECIDED_TO, answer.high),
        (codes.WITHOUT_PEAK, after),
        (codes.WITHOUT_OTHER, control),
    )
    known = [(name, value) for name, value in percents if value is not None] if answer.score is not None else []
    found = [sr.Measurement(name, _percent(value), codes.PERCENT) for name, value in known]
    if answer.margin is not None:
        found.append(sr.Measurement(codes.MARGIN, round(answer.margin, 4), codes.ONE))
    if answer.percentile is not None:
        found.append(sr.Measurement(codes.PERCENTILE, round(answer.percentile, 1), codes.PERCENT))
    return found


def _percent(share: float) -> float:
    return round(100.0 * share, 2)


def _risk(job: Job) -> Group:
    """The survival estimate as a group of its own; there is no standard code for it."""
    risk = job.told.risk or {}
    found = [
        sr.Measurement(codes.survival_at(int(days)), _percent(p), codes.PERCENT) for days, p in (risk["survival"] or {}).items()
    ]
    if risk["value"] is not None:
        found.append(sr.Measurement(codes.LOG_HAZARD, round(float(risk["value"]), 4), codes.ONE))
    if risk["percentile"] is not None:
        found.append(sr.Measurement(codes.PERCENTILE, round(float(risk["percentile"]), 1), codes.PERCENT))
    reasons = tuple(Reason(r["code"], r["message"]) for r in risk["reasons"])
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=job.tracking_uid("risk"), identifier="risk"),
        finding_type=codes.SURVIVAL,
        algorithm_id=_algorithm(job),
        measurements=found or None,
        qualitative_evaluations=[sr.QualitativeEvaluation(codes.NOTED, _reason(reason)) for reason in reasons] or None,
    )
    group[0].ContentSequence.append(
        _comment(f"Endpoint: {risk['endpoint']}. Percentile among the validation patients of the model.")
    )
    for reason in reasons:
        group[0].ContentSequence.append(_comment(f"{reason.code}: {reason.message}"))
    return group


def _nothing(job: Job) -> Group:
    """The group of a study of which nothing was asked, since the template wants one."""
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=job.tracking_uid("nothing"), identifier="nothing asked"),
        finding_type=private("nothing-asked", "No finding was asked of this study"),
        algorithm_id=_algorithm(job),
    )


def _comment(text: str) -> sr.TextContentItem:
    return sr.TextContentItem(codes.COMMENT, text, relationship_type=_CONTAINS)
