"""A human's decision as a DICOM structured report: TID 1500 by the person who signed, beside the software's own report.

Each decided finding is a measurement group (TID 1501) with the human's (121052, DCM, "Presence of property"), what became of the
software's answer, and that answer; it carries the tracking UID of the software's group and, where there is one, a reference to
the software's report.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from highdicom import sr
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from medvl.delivery import codes
from medvl.delivery.codes import finding_code, finding_site, private
from medvl.delivery.source import quiet, read_source
from medvl.delivery.stamp import Job, common, finish
from medvl.delivery.told import read_told
from medvl.errors import InputError
from medvl.imaging.load import Entry
from medvl.review.record import MAY_VERIFY, Choice, Kept, Review, ReviewError, Status
from medvl.review.statement import statement
from medvl.text.prompts import FindingList

_CONTAINS = sr.RelationshipTypeValues.CONTAINS
_DECISION = private("review", "Decision of the reviewer on the answer of software")
_CHOICES = {
    Choice.accept: private("review-accept", "Answer accepted"),
    Choice.reject: private("review-reject", "Answer rejected"),
    Choice.correct: private("review-correct", "Answer corrected"),
    Choice.added: private("review-added", "Finding added"),
}
_SAID = private("software-said", "Presence according to software")
_REVIEWED = private("reviewed-report", "Report of the software that was reviewed")


@dataclass(frozen=True, eq=False)
class _Job(Job):
    """A job that also knows what the reviewer wrote, for the character set."""

    written: tuple[str, ...] = field(default=(), repr=False)

    def words(self) -> list[str]:
        """Everything that is said in words that medvl did not choose."""
        return [*super().words(), *self.written]


def decision_report(
    study: Path,
    review: Review,
    entry: Entry,
    *,
    organisation: str = "",
    findings: FindingList | None = None,
    headers: Sequence[Dataset] | None = None,
) -> Dataset:
    """The report of a signed study. It is final; it is verified where the signer may verify and an organisation is named.

    Args:
        study: the study's results folder; `dicom/sr.dcm` in it is referred to, where it is there.
        review: signed, and about the answers in that folder.
        entry: the volume that the answers are about.
        organisation: of the signer. DICOM wants it named in what is verified; without it the report is unverified.
        findings: the list that was asked, for its codes; private codes without it.
        headers: instead of the source's own, such as de-identified ones.

    Raises:
        ReviewError: the study is not signed.
        InputError: of `read_told` and `read_source`.
    """
    if review.status != Status.signed:
        raise ReviewError(f"the study is {review.status}; only what is signed goes into a DICOM report")
    with quiet():
        job = _job(study, review, entry, organisation, headers)
        theirs = _software_report(study, job)
        groups = [_group(job, kept, findings, theirs) for kept in _in_order(review)] or [_nothing(job)]
        content = sr.MeasurementReport(
            observation_context=sr.ObservationContext(observer_person_context=_observer(review, organisation)),
            procedure_reported=codes.CT_PROCEDURE,
            title=codes.REPORT_TITLE,
            imaging_measurements=groups,
        )
        root = content[0]
        root.ContentSequence.insert(len(root.ContentSequence) - 1, _comment(_summary(job, review)))
        verified = review.role in MAY_VERIFY and bool(organisation.strip())
        made = sr.Comprehensive3DSR(
            evidence=[*job.source.images, *([theirs] if theirs is not None else [])],
            content=root,
            is_complete=True,
            is_final=True,
            is_verified=verified,
            verifying_observer_name=person_name(review.by) if verified else None,
            verifying_organization=_line(organisation) if verified else None,
            **common(job, "review", _identity(review, organisation)),
        )
        finish(made, job)
        for observer in made.get("VerifyingObserverSequence", []):
            observer.VerificationDateTime = job.local.strftime("%Y%m%d%H%M%S")
    return made


def person_name(name: str) -> str:
    """A name as given by the sign-in that a Person Name element can hold: one component group, no control characters."""
    plain = "".join(" " if letter in "\\=" or not letter.isprintable() else letter for letter in name)
    return " ".join(plain.split())[:64] or "unknown"


def _job(study: Path, review: Review, entry: Entry, organisation: str, headers: Sequence[Dataset] | None) -> _Job:
    kept = review.decisions.values()
    written = (review.by, organisation, *(w for k in kept for w in (k.decision.label, k.decision.comment, k.decision.region)))
    return _Job(read_source(entry, headers), read_told(study), datetime.fromtimestamp(review.at, UTC), tuple(written))


def _identity(review: Review, organisation: str) -> str:
    """The same for the same decisions signed at the same time."""
    told = json.dumps([statement(review), organisation], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _software_report(study: Path, job: Job) -> Dataset | None:
    """The software's report of these answers: only one that belongs to the same study, patient and content is referred to."""
    try:
        found = dcmread(study / "dicom" / "sr.dcm")
    except (OSError, InvalidDicomError):
        return None
    same = str(found.get("SOPInstanceUID", "")) in {job.uid("sr"), job.uid("sr", "with heat maps")}
    return found if same and found.get("StudyInstanceUID") == job.source.study_uid else None


def _observer(review: Review, organisation: str) -> sr.ObserverContext:
    person = sr.PersonObserverIdentifyingAttributes(name=person_name(review.by), organization_name=_line(organisation) or None)
    return sr.ObserverContext(observer_type=sr.CodedConcept("121006", "DCM", "Person"), observer_identifying_attributes=person)


def _in_order(review: Review) -> list[Kept]:
    """Decisions in the order of the answers, additions last."""
    decided = [review.decisions[item.name] for item in review.answers.items if item.name in review.decisions]
    return [*decided, *review.added]


def _group(job: Job, kept: Kept, findings: FindingList | None, theirs: Dataset | None) -> Any:
    decision = kept.decision
    said = [
        sr.QualitativeEvaluation(codes.PRESENCE, codes.VERDICTS[decision.presence]),
        sr.QualitativeEvaluation(_DECISION, _CHOICES[decision.choice]),
    ]
    if kept.said:
        said.append(sr.QualitativeEvaluation(_SAID, codes.VERDICTS[kept.said]))
    site, side = finding_site(decision.finding, decision.region, findings) if decision.region else (None, None)
    key = decision.finding or "free-" + hashlib.sha256(decision.label.encode()).hexdigest()[:8]
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=job.tracking_uid(decision.item), identifier=decision.item),
        finding_type=finding_code(key, _line(decision.label), findings),
        finding_sites=[sr.FindingSite(site, laterality=side)] if site is not None else None,
        qualitative_evaluations=said,
    )
    if theirs is not None and kept.said:
        reference = sr.CompositeContentItem(_REVIEWED, theirs.SOPClassUID, theirs.SOPInstanceUID, _CONTAINS)
        group[0].ContentSequence.append(reference)
    place = f", {decision.region.replace('_', ' ')}" if decision.region else ""
    group[0].ContentSequence.append(_comment(f"{decision.label}{place}: {decision.presence}."))
    if decision.comment:
        group[0].ContentSequence.append(_comment(decision.comment))
    return group


def _nothing(job: Job) -> Any:
    """The group of a study in which nothing had to be decided, since the template wants one."""
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=job.tracking_uid("nothing reviewed"), identifier="nothing decided"),
        finding_type=private("nothing-decided", "No finding was decided in this study"),
    )


def _summary(job: Job, review: Review) -> str:
    told = job.told
    return (
        f"Decisions of a person on answers of software. {told.research_use} Model: {told.bundle}, SHA-256 {told.bundle_sha256}; "
        f"SHA-256 of the answers {review.answers.sha256}. Findings that are not listed were not decided."
    )


def _comment(text: str) -> sr.TextContentItem:
    return sr.TextContentItem(codes.COMMENT, text, relationship_type=_CONTAINS)


def _line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() and letter != "\\" else " " for letter in text).split())[:64]


def check_readable(made: Dataset, path: Path) -> None:
    """Read a written report back and compare what it says with what was meant.

    Raises:
        InputError: ``object_check_failed``.
    """
    with quiet():
        found = dcmread(path)
        same = found.get("ContentSequence") == made.get("ContentSequence")
        flags = ("VerificationFlag", "PreliminaryFlag", "StudyInstanceUID", "SOPInstanceUID")
        if not same or any(found.get(name) != made.get(name) for name in flags):
            raise InputError("object_check_failed", "the report differs from the decisions; it was not kept and must not be sent")
