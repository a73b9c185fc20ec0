"""What child processes are sent to do: find studies, read them, make objects for the PACS."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from typing import TYPE_CHECKING

from medvl.batch import finder
from medvl.batch.hand import ChildError, Hand, Here, KilledError
from medvl.batch.ledger import Claimed, Ended
from medvl.batch.maker import Maker
from medvl.batch.reading import ready
from medvl.batch.tables import State
from medvl.errors import InputError
from medvl.network.errors import retryable
from medvl.records import Reason

if TYPE_CHECKING:
    from medvl.batch.run import Run


class Errands:
    """The jobs of a run's child processes, handed out one by one.

    Args:
        run: whose they are.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._maker = run, Maker(run)
        self._tries: Counter[str] = Counter()  # to fetch a study
        self.under_way = threading.Semaphore(run.options.readers + 2 * run.options.batch)
        self.over, self.idle = threading.Event(), threading.Event()

    def finished(self) -> bool:
        """Whether nothing is left for this process: no input, no study, no object."""
        return not (self._run.finder.busy or self._run.ledger.to_do() or self._maker.left())

    def step(self, hand: Hand | Here) -> bool:
        """Do one errand; False when there is none.

        Reading comes first: the model begins with the first study, and further inputs are looked at while it is busy.
        """
        return self._read(hand) or self._run.finder.find(hand) or self._maker.make(hand)

    def _read(self, hand: Hand | Here) -> bool:
        if not self.under_way.acquire(blocking=False):
            return False
        run = self._run
        claimed = run.ledger.claim(attempts=run.options.limits.attempts, by=run.finder.by)
        if claimed is None:
            self.under_way.release()
            return False
        self._run.finder.seen.setdefault(claimed.case_id, "")
        try:
            self._read_one(hand, claimed)
        except Exception:
            self.under_way.release()
            raise
        return True

    def _read_one(self, hand: Hand | Here, claimed: Claimed) -> None:
        run, limits = self._run, self._run.options.limits
        spool = run.folder.out / "spool" / claimed.case_id
        job = {
            "op": "read",
            "source": claimed.source,
            "series": claimed.series,
            "spool": str(spool),
            "study_bytes": limits.study_bytes,
        }
        try:
            with run.meter.stage("read and prepare"):
                told, arrays = hand.ask(job, limits.study_s)
            run.ready(ready(claimed, told, arrays))
            return
        except InputError as error:
            if retryable(error) and self._again(claimed, error):
                self.under_way.release()
                return  # what was fetched so far stays
            if retryable(error):
                run.ends(claimed.case_id, Ended(State.failed, error.code, error.message, series=claimed.series))
            else:
                run.ends(claimed.case_id, Ended(State.skipped, error.code, error.message, series=claimed.series))
        except KilledError as error:
            if not run.stop.set:
                self._later(claimed, error.code, error.message)
        except ChildError as error:
            run.ends(claimed.case_id, Ended(State.failed, "internal_error", str(error), series=claimed.series))
        shutil.rmtree(spool, ignore_errors=True)
        self.under_way.release()

    def _again(self, claimed: Claimed, error: InputError) -> bool:
        """Put back a study that the PACS did not give, which is not the study's fault; False when it was tried long enough."""
        self._tries[claimed.case_id] += 1
        tried = self._tries[claimed.case_id]
        if tried > len(finder.WAITS_S):
            return False
        self._run.ledger.later(claimed.case_id, error.code, error.message, finder.WAITS_S[tried - 1])
        return True

    def _later(self, claimed: Claimed, code: str, message: str) -> None:
        """Another try, or the end of them."""
        run = self._run
        state = run.ledger.back(claimed.case_id, run.options.limits.attempts, code, message)
        if state == State.quarantined:
            reasons = [Reason(code, message)]
            record = run.folder.record(claimed.case_id, run.predictor.bundle, "failed", reasons, claimed.series, None)
            run.folder.write(claimed.case_id, record, None)
            run.told(claimed.case_id, str(state), code)
