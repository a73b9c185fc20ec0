"""Deciding: what a reader saves, signs and opens again. Nothing is overwritten, and everything kept is durable."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.engine import Connection

from medvl.review.answers import Answers, read_answers
from medvl.review.book import Book
from medvl.review.record import (
    LONGEST_TEXT,
    MAY_DECIDE,
    AnswersChangedError,
    Choice,
    ConflictError,
    Decision,
    Kept,
    NotAllowedError,
    ReportText,
    Review,
    ReviewError,
    Status,
    UnfinishedError,
    Who,
)
from medvl.review.state import (
    expect,
    expect_study,
    expect_text,
    is_item,
    is_text,
    kept_of,
    reason_given,
    review_of,
    row_of,
    text_from,
)
from medvl.review.tables import TEXT_DROPPED, TEXT_SAVED, decisions, texts


class Reviews(Book):
    """The reviews of one results folder."""

    def save(self, case_id: str, decision: Decision, who: Who, *, expected_version: int, results: str) -> Kept:
        """Keep a decision.

        Args:
            case_id: the study.
            decision: what was decided.
            who: by whom.
            expected_version: of the item as the reader saw it, 0 where it was undecided.
            results: SHA-256 of the answers that the reader saw.

        Raises:
            ConflictError: somebody else decided this item since; nothing was overwritten.
            AnswersChangedError, NotAllowedError, ReviewError, InputError
        """
        with self._changing(case_id, who, results) as (db, answers):
            item = answers.item(decision.item)
            settled = decision.settled(item)
            old = kept_of(db, answers, settled.item)
            if old is not None and old.decision == settled and old.by == who.name:
                return old  # the same click, sent twice
            expect(old, expected_version)
            said, asked_of = ("", "") if item is None else (item.verdict, item.region)
            return self._keep(db, answers, who, settled, old, said, asked_of)

    def withdraw(self, case_id: str, item: str, who: Who, *, expected_version: int, results: str) -> None:
        """Take a decision back; it stays in the history.

        Raises:
            ConflictError, AnswersChangedError, NotAllowedError, ReviewError, InputError
        """
        with self._changing(case_id, who, results) as (db, answers):
            old = kept_of(db, answers, item)
            expect(old, expected_version)
            if old is not None and old.decision.choice != Choice.withdrawn:
                told = old.decision
                gone = Decision(item, Choice.withdrawn, told.presence, told.region, told.finding, told.label, "")
                self._keep(db, answers, who, gone, old, old.said, old.asked_of)

    def _keep(
        self, db: Connection, answers: Answers, who: Who, decision: Decision, old: Kept | None, said: str, asked_of: str
    ) -> Kept:
        version, now = (old.version if old else 0) + 1, time.time()
        kept = Kept(
            decision, answers.case_id, answers.sha256, answers.bundle_sha256, said, asked_of, who.name, who.role, now, version
        )
        db.execute(decisions.delete().where(is_item(answers, decision.item)))
        db.execute(decisions.insert().values(row_of(kept)))
        what = "decision withdrawn" if decision.choice == Choice.withdrawn else "decision saved"
        self.add_history(db, answers, who, what, now, row_of(kept), item=decision.item, version=version)
        self.set_status(db, answers, who, Status.in_review, now)
        return kept

    def save_text(
        self, case_id: str, text: str, who: Who, *, proposed: str = "", expected_version: int, results: str
    ) -> ReportText | None:
        """Keep what a human wrote for the report; every version stays in the history. Empty takes it back.

        Args:
            case_id: the study.
            text: plain.
            who: wrote it.
            proposed: the software's draft that was on the page.
            expected_version: of the text as the writer saw it, 0 where there was none.
            results: SHA-256 of the answers that the writer saw.

        Raises:
            ConflictError: somebody else saved a text since; nothing was overwritten.
            AnswersChangedError, NotAllowedError, ReviewError, InputError
        """
        said = text.strip()
        if max(len(said), len(proposed)) > LONGEST_TEXT:
            raise ReviewError(f"the text has {len(said)} characters; {LONGEST_TEXT} are kept at most")
        with self._changing(case_id, who, results) as (db, answers):
            before = review_of(db, answers)
            old = before.text
            if said == (old.text if old else ""):
                return old  # nothing new, or the same save sent twice
            expect_text(before, expected_version)
            now, version = time.time(), before.text_version + 1
            row: dict[str, Any] = {"text": said, "proposed": proposed, "bundle": answers.bundle_sha256}
            row |= {"by": who.name, "role": who.role, "at": now, "version": version}
            db.execute(texts.delete().where(is_text(answers)))
            db.execute(texts.insert().values(case_id=case_id, results=answers.sha256, **row))
            what = TEXT_SAVED if said else TEXT_DROPPED
            self.add_history(db, answers, who, what, now, row, version=version)
            self.set_status(db, answers, who, Status.in_review, now)
            return text_from(row) if said else None

    # The study as a whole

    def sign(self, case_id: str, who: Who, *, expected_version: int, results: str) -> Review:
        """Sign a study: every present and undecided answer must be decided.

        Raises:
            UnfinishedError: names what is missing.
            ConflictError: something was saved about the study since the reader looked (`expected_version` of the study).
            AnswersChangedError, NotAllowedError, ReviewError, InputError
        """
        with self._changing(case_id, who, results) as (db, answers):
            now = review_of(db, answers)
            expect_study(now, expected_version)
            if not answers.done:
                raise ReviewError("the model gave no answers about this study, so there is nothing to sign; reject it instead")
            if now.missing:
                raise UnfinishedError(now.missing)
            return self._turn(db, answers, who, Status.signed, "")

    def reject(self, case_id: str, who: Who, reason: str, *, expected_version: int, results: str) -> Review:
        """Put a study aside as a whole, such as for images that cannot be read.

        Raises:
            ConflictError, AnswersChangedError, NotAllowedError, ReviewError, InputError
        """
        with self._changing(case_id, who, results) as (db, answers):
            expect_study(review_of(db, answers), expected_version)
            return self._turn(db, answers, who, Status.rejected, reason_given(reason))

    def unsign(self, case_id: str, who: Who, reason: str, *, expected_version: int, results: str) -> Review:
        """Open a signed or rejected study again; its decisions stay.

        Raises:
            ConflictError, AnswersChangedError, NotAllowedError, ReviewError, InputError
        """
        with self._changing(case_id, who, results, closed=True) as (db, answers):
            expect_study(review_of(db, answers), expected_version)
            return self._turn(db, answers, who, Status.in_review, reason_given(reason))

    def _turn(self, db: Connection, answers: Answers, who: Who, status: Status, comment: str) -> Review:
        now = time.time()
        self.set_status(db, answers, who, status, now, comment)
        review = review_of(db, answers)
        what = {Status.signed: "signed", Status.rejected: "rejected"}.get(status, "opened again")
        counts = {"decisions": {name: kept.version for name, kept in sorted(review.decisions.items())}}
        content = {"status": status, "comment": comment, **counts, "text": review.text_version if review.text else None}
        self.add_history(db, answers, who, what, now, content, version=review.version)
        return review

    @contextmanager
    def _changing(self, case_id: str, who: Who, results: str, *, closed: bool = False) -> Iterator[tuple[Connection, Answers]]:
        """A transaction on a study that `who` may change and that is open, or closed, as it must be."""
        if who.role not in MAY_DECIDE:
            raise NotAllowedError(f"the role {who.role} may look but not decide; sign in as one of: {', '.join(MAY_DECIDE)}")
        with self.writing() as db:
            answers = read_answers(self.folder, case_id)
            if answers.sha256 != results:
                raise AnswersChangedError
            self.reopen(db, answers)
            now = review_of(db, answers)
            if (now.status in (Status.signed, Status.rejected)) != closed:
                if closed:
                    raise ReviewError(f"the study is {now.status}, neither signed nor rejected; there is nothing to open again")
                raise ConflictError(now.by, now.at, f"the study is {now.status}; open it again first")
            yield db, answers
