"""The book that reviews are kept in: `reviews.sqlite` in the results folder, with its history and its audit log."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from medvl.data.identity import folder_key, keyed_id
from medvl.errors import ConfigError, InputError
from medvl.review.answers import Answers, read_answers
from medvl.review.audit import Chain, Verified, digest_of, rows
from medvl.review.record import Person, Review, ReviewError, Status, Who
from medvl.review.state import review_of, version_of
from medvl.review.tables import READABLE, SCHEMA, about, history, metadata, studies, times
from medvl.store import open_engine

FILE, KEY = "reviews.sqlite", "reviews.key"
_MEDVL = Person("medvl", "software")
_LONGEST_S = 3600.0  # one report of reading time cannot be longer than this


class Book:
    """What is kept about one results folder; threads and processes may share it.

    Args:
        folder: what `medvl infer` wrote.
        key_file: random key of the audit log and of reviewers' pseudonyms, made with mode 0600; default: `reviews.key` in the
            folder. Kept elsewhere, who can change the folder cannot forge the log.

    Raises:
        ConfigError: a database of another version, or one whose key is gone.
    """

    def __init__(self, folder: Path, *, key_file: Path | None = None) -> None:
        self.folder = folder
        place, key_file = folder / FILE, key_file or folder / KEY
        if place.exists() and place.stat().st_size and not key_file.exists():
            raise ConfigError(f"the key of the reviews is gone: put {key_file.name} back, or move {FILE} away to begin anew")
        self._key = folder_key(key_file)
        self.chain = Chain(self._key)
        self._engine = open_engine(place)
        with self.writing() as db:
            if sa.inspect(db).has_table("about"):
                told = db.execute(sa.select(about.c.value).where(about.c.name == "schema")).scalar()
                if told not in READABLE:
                    raise ConfigError(f"the reviews have schema {told}, this medvl reads {SCHEMA}; use the medvl that wrote them")
                if told != str(SCHEMA):
                    self._renew(db, str(told))
                return
            metadata.create_all(db)
            db.execute(about.insert().values(name="schema", value=str(SCHEMA)))
            self.chain.add(db, _MEDVL, "log begun")

    def _renew(self, db: Connection, old: str) -> None:
        """Add what an older medvl did not keep; nothing that was kept changes."""
        metadata.create_all(db)
        db.execute(about.update().where(about.c.name == "schema").values(value=str(SCHEMA)))
        self.chain.add(db, _MEDVL, "log of an older medvl continued", schema=str(SCHEMA), before=old)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        """Opened."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the connections."""
        self.close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One transaction that sees one state of things."""
        with self._engine.begin() as db:
            yield db

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction that holds the right to write from its start."""
        with self._engine.execution_options(writes=True).begin() as db:
            yield db

    def pseudonym(self, name: str) -> str:
        """12 hex digits that stand for a reviewer: the same within a folder, and not to be worked out without its key."""
        return keyed_id(self._key, f"reviewer {name}")

    # Looking

    def review(self, case_id: str) -> Review:
        """Where a study stands.

        Raises:
            InputError: ``results_unreadable``.
        """
        with self.reading() as db:
            return review_of(db, read_answers(self.folder, case_id))

    def statuses(self) -> dict[str, Status]:
        """Of every study that anybody worked on; one with new answers counts as unread. Others are unread."""
        with self.reading() as db:
            known = db.execute(sa.select(studies.c.case_id, studies.c.status, studies.c.results)).all()
        return {case: Status(status) if self._same(case, results) else Status.unread for case, status, results in known}

    def _same(self, case_id: str, results: str) -> bool:
        try:
            return read_answers(self.folder, case_id).sha256 == results
        except InputError:
            return False

    def history(self, case_id: str) -> list[dict[str, Any]]:
        """Every change about a study in order, those on earlier answers included."""
        with self.reading() as db:
            found = db.execute(sa.select(history).where(history.c.case_id == case_id).order_by(history.c.number)).mappings()
            return [{**row, "content": json.loads(row["content"])} for row in found]

    # What was seen and done

    def log(self, who: Who, what: str, case_id: str = "", **detail: Any) -> None:
        """Note an event that changes no review: ``view opened``, ``finding viewed``, ``exported``, ``signed in``..."""
        with self.writing() as db:
            self.chain.add(db, who, what, case_id, **detail)

    def events(self) -> list[dict[str, Any]]:
        """The audit log in order."""
        with self.reading() as db:
            return [{**row, "detail": json.loads(row["detail"])} for row in rows(db)]

    def verify(self, since: str | None = None) -> Verified:
        """Check the audit log, the history and what stands now against each other."""
        with self.reading() as db:
            return self.chain.verify(db, since)

    def opened(self, case_id: str, who: Who) -> Review:
        """Somebody opens a study; new answers reopen it."""
        answers = read_answers(self.folder, case_id)
        with self.writing() as db:
            self.chain.add(db, who, "view opened", case_id, results=answers.sha256)
            self.reopen(db, answers)
            return review_of(db, answers)

    def add_time(self, case_id: str, results: str, who: Who, seconds: float) -> None:
        """Add active reading time, as the page measured it.

        Raises:
            ReviewError: no number of seconds that can be.
        """
        if not 0 <= seconds <= _LONGEST_S:
            raise ReviewError(f"{seconds:.0f} s are no reading time; 0 to {_LONGEST_S:.0f} are")
        with self.writing() as db:
            mine = (times.c.case_id == case_id) & (times.c.results == results) & (times.c.by == who.name)
            if not db.execute(times.update().where(mine).values(seconds=times.c.seconds + seconds)).rowcount:
                db.execute(times.insert().values(case_id=case_id, results=results, by=who.name, seconds=seconds))

    def reopen(self, db: Connection, answers: Answers) -> None:
        """A study whose status is about other answers is unread again."""
        row = db.execute(sa.select(studies.c.results).where(studies.c.case_id == answers.case_id)).first()
        if row is not None and row[0] != answers.sha256:
            now = time.time()
            self.set_status(db, answers, _MEDVL, Status.unread, now)
            content = {"status": Status.unread, "earlier_results": row[0], "comment": "", "decisions": {}}
            self.add_history(
                db, answers, _MEDVL, "reopened by new answers", now, content, version=version_of(db, answers.case_id)
            )

    def set_status(self, db: Connection, answers: Answers, who: Who, status: Status, now: float, comment: str = "") -> None:
        """The status of a study, with regard to these answers."""
        values = {
            "status": str(status),
            "version": version_of(db, answers.case_id) + 1,
            "results": answers.sha256,
            "bundle": answers.bundle_sha256,
            "comment": comment,
            "by": who.name,
            "role": who.role,
            "at": now,
        }
        if not db.execute(studies.update().where(studies.c.case_id == answers.case_id).values(**values)).rowcount:
            db.execute(studies.insert().values(case_id=answers.case_id, **values))

    def add_history(
        self,
        db: Connection,
        answers: Answers,
        who: Who,
        what: str,
        now: float,
        content: Mapping[str, Any],
        *,
        item: str = "",
        version: int,
    ) -> None:
        """One line of history, and the audit event that vouches for it."""
        row = {
            "at": now,
            "by": who.name,
            "role": who.role,
            "case_id": answers.case_id,
            "results": answers.sha256,
            "what": what,
            "item": item,
            "version": version,
            "content": json.dumps(content, sort_keys=True),
        }
        (number,) = db.execute(history.insert().values(row)).inserted_primary_key or (0,)
        self.chain.add(
            db, who, what, answers.case_id, now, item=item, history=number, sha256=digest_of({**row, "number": number})
        )
