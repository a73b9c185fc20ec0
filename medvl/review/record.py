"""The nouns of a review: who, what they decided, where a study stands, and why something was not saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

from medvl.errors import MedvlError
from medvl.review.answers import Answers, Item

MAY_DECIDE = ("reviewer", "admin")
LONGEST_TEXT = 20_000  # characters
MAY_VERIFY = ("reviewer",)  # may stand as the verifying observer of a DICOM report
ADDED = "added:"


class Who(Protocol):
    """Somebody who is signed in."""

    @property
    def name(self) -> str:
        """As the sign-in gives it."""

    @property
    def role(self) -> str:
        """``reader``, ``reviewer`` or ``admin``."""


@dataclass(frozen=True)
class Person:
    """Somebody, where no sign-in tells who it is, such as the user of a command."""

    name: str
    role: str = "reader"


class Status(StrEnum):
    """Where the human side of a study is."""

    unread = "unread"
    in_review = "in review"
    signed = "signed"
    rejected = "rejected"


class Choice(StrEnum):
    """What became of one answer. A rejected one was wrong: what it called present is absent, and the other way round."""

    accept = "accept"
    reject = "reject"
    correct = "correct"
    added = "added"
    withdrawn = "withdrawn"


_OPPOSITE = {"present": "absent", "absent": "present"}
_PRESENCE = ("present", "absent", "undecided")


@dataclass(frozen=True)
class Decision:
    """What a human says of one finding.

    Args:
        item: name of the model's answer, ``finding@region``, or ``added:...`` for a finding that the model missed.
        choice: what becomes of it.
        presence: of a correction: present, absent or undecided.
        region: of a correction or an addition: where it truly is; empty keeps the model's.
        finding: of an addition: key in the findings list; empty for one in the reader's own words.
        label: of an addition: how it is called.
        comment: free text.
    """

    item: str
    choice: Choice
    presence: str = ""
    region: str = ""
    finding: str = ""
    label: str = ""
    comment: str = ""

    def settled(self, answer: Item | None) -> Decision:
        """The same with everything said that follows from the model's answer.

        Raises:
            ReviewError: it does not fit the answer.
        """
        if self.choice == Choice.withdrawn:
            raise ReviewError("a decision is taken back with `withdraw`")
        if self.choice == Choice.added:
            return self._as_added()
        if answer is None:
            raise ReviewError("the model gave no such answer about this study; reload the page")
        said = {Choice.accept: answer.verdict, Choice.reject: _OPPOSITE.get(answer.verdict, "")}.get(self.choice, self.presence)
        if self.choice == Choice.correct and said not in _PRESENCE:
            raise ReviewError("say what is right: present, absent or undecided")
        if said not in _PRESENCE:
            raise ReviewError("an undecided answer is neither right nor wrong: correct it to present or absent, or accept it")
        region = self.region if self.choice == Choice.correct and self.region else answer.region
        if region != answer.region and said != "present":
            raise ReviewError("another place can only be given for a finding that is present")
        return Decision(self.item, self.choice, said, region, answer.finding, answer.label, self.comment.strip())

    def _as_added(self) -> Decision:
        label = " ".join((self.label or self.finding).split())
        if not self.item.startswith(ADDED) or not label:
            raise ReviewError("say which finding the model missed, from the list or in your own words")
        return Decision(self.item, Choice.added, "present", self.region, self.finding, label, self.comment.strip())


@dataclass(frozen=True)
class Kept:
    """A decision as it was saved.

    Args:
        results: SHA-256 of the answers that it is about.
        bundle: SHA-256 of the model bundle that gave them.
        said: the model's verdict, and `asked_of` its region; empty for an addition.
        version: counts from 1; the next save must name it.
    """

    decision: Decision
    case_id: str
    results: str
    bundle: str
    said: str
    asked_of: str
    by: str
    role: str
    at: float
    version: int


@dataclass(frozen=True)
class ReportText:
    """What a human wrote of a study, from the software's draft or afresh; no report before the study is signed.

    Args:
        text: plain, as it was saved.
        proposed: the software's draft at that time; empty where there was none.
        version: counts from 1; the next save must name it.
    """

    text: str
    proposed: str
    by: str
    role: str
    at: float
    version: int

    @property
    def changed(self) -> bool:
        """Whether it says anything else than the software's draft."""
        return self.text.split() != self.proposed.split()


@dataclass(frozen=True)
class Review:
    """Where the human side of a study stands, with regard to the answers that are there now.

    Args:
        version: of the study; it changes with everything that is saved about it.
        decisions: by item, without those taken back.
        versions: of every item that was ever decided; 0 for others.
        seconds: of active reading time by person.
        text: for the report, as saved last; None where nobody saved one, or it was taken back.
        text_version: of that text, taken back or not; 0 where there never was one.
        earlier: decisions were made on earlier answers; they are kept as history.
        by, at, comment: of the last change of status; empty and 0 before.
    """

    answers: Answers
    status: Status = Status.unread
    version: int = 0
    decisions: Mapping[str, Kept] = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    text: ReportText | None = None
    text_version: int = 0
    earlier: bool = False
    by: str = ""
    role: str = ""
    at: float = 0.0
    comment: str = ""

    @property
    def missing(self) -> tuple[Item, ...]:
        """Answers that must be decided before the study can be signed: all but the absent ones."""
        return tuple(i for i in self.answers.items if i.verdict != "absent" and i.name not in self.decisions)

    @property
    def added(self) -> tuple[Kept, ...]:
        """What the model missed, in the order in which it was added."""
        return tuple(sorted((k for k in self.decisions.values() if k.decision.choice == Choice.added), key=lambda k: k.at))


class ReviewError(MedvlError):
    """A decision cannot be saved, for a reason that the reader can mend; nothing was changed."""


class NotAllowedError(ReviewError):
    """The role may not do this."""


class UnfinishedError(ReviewError):
    """The study cannot be signed yet.

    Args:
        missing: answers without a decision.
    """

    def __init__(self, missing: tuple[Item, ...]) -> None:
        super().__init__(f"{len(missing)} findings are not decided: " + ", ".join(item.name for item in missing))
        self.missing = missing


class AnswersChangedError(ReviewError):
    """The model answered anew since the page was drawn: a decision would belong to answers that nobody looked at."""

    def __init__(self) -> None:
        super().__init__("the model's answers about this study changed since you opened it; look at the new ones, then decide")


class ConflictError(ReviewError):
    """Somebody else was faster; theirs is kept, yours was not saved.

    Args:
        by, at: who changed it and when (seconds since 1970, UTC).
        theirs: what they saved; None where they changed the study's status.
        what: in a word or two.
    """

    def __init__(self, by: str, at: float, what: str, theirs: Kept | None = None) -> None:
        super().__init__(f"{by} changed this at {moment(at)}: {what}; yours was not saved, nothing was overwritten")
        self.by, self.at, self.what, self.theirs = by, at, what, theirs


def moment(at: float) -> str:
    """A time for people, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
