"""Making DICOM objects of finished studies."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from medvl.batch import finder
from medvl.batch.dues import Unmade
from medvl.batch.hand import ChildError, Hand, Here, KilledError
from medvl.errors import InputError
from medvl.network.errors import retryable
from medvl.records import Reason

if TYPE_CHECKING:
    from medvl.batch.run import Run


class Maker:
    """The objects that the studies of a run still lack, made one study at a time.

    Args:
        run: whose they are.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._making: set[str] = set()
        self._not_given: set[str] = set()  # images that are needed again, which the PACS does not give
        self._failed: Counter[str] = Counter()

    def left(self) -> bool:
        """Whether a study lacks objects that this run can make, or is making."""
        with self._lock:
            return bool(self._making or self._unmade())

    def make(self, hand: Hand | Here) -> bool:
        """Make those of one study; False when none lacks any."""
        run = self._run
        with self._lock:
            due = run.dues.take(self._not_given) if self._unmade() else None
            if due is None:
                return False
            self._making.add(due.case_id)
        try:
            with run.meter.stage("make objects"):
                self._make_one(hand, due)
        finally:
            run.dues.put_back(due.case_id)
            with self._lock:
                self._making.discard(due.case_id)
        return True

    def _unmade(self) -> list[str]:
        """Studies that lack objects, less those that this run makes, or that the PACS does not give it."""
        busy = self._making | self._not_given
        return [case_id for case_id in self._run.dues.unmade(len(busy) + 1) if case_id not in busy]

    def _make_one(self, hand: Hand | Here, due: Unmade) -> None:
        run, case_id = self._run, due.case_id
        study, spool = run.folder.folder(case_id), run.folder.out / "spool" / case_id
        with suppress(FileNotFoundError):
            shutil.rmtree(study / "dicom")  # what was made before in another way
        job = {
            "op": "objects",
            "source": due.source,
            "series": due.series,
            "study": str(study),
            "out": str(study / "dicom"),
            "kinds": list(run.options.kinds),
            "spool": str(spool),
            "study_bytes": run.options.limits.study_bytes,
        }
        reason: Reason | None = None
        made: list[dict[str, Any]] = []
        try:
            made = self._objects(hand, job)
        except InputError as error:
            if retryable(error):
                self._not_given.add(case_id)
                return
            reason = Reason(error.code, error.message)
        except KilledError as error:
            self._failed[case_id] += 1
            if run.stop.set or self._failed[case_id] < run.options.limits.attempts:
                return
            reason = Reason(error.code, error.message)
        except ChildError as error:
            reason = Reason("internal_error", str(error))
        if run.dues.made(case_id, made, reason) and reason is not None:
            run.told(case_id, "no objects", reason.code)
        shutil.rmtree(spool, ignore_errors=True)

    def _objects(self, hand: Hand | Here, job: dict[str, Any]) -> list[dict[str, Any]]:
        """What was made; images that are gone are asked for as long as for reading them."""
        waits_s = iter(finder.WAITS_S)
        while True:
            try:
                told, _ = hand.ask(job, self._run.options.limits.study_s)
                return list(told["objects"])
            except InputError as error:
                wait_s = next(waits_s, None) if retryable(error) else None
                if wait_s is None or self._run.stop.wait(wait_s):
                    raise
