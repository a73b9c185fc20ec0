"""What child processes are sent to do: find studies, read them, make objects for the PACS."""

from __future__ import annotations

import queue
import shutil
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvl.batch.hand import ChildError, Hand, Here, KilledError
from medvl.batch.inputs import Input, queried
from medvl.batch.ledger import Case, Claimed, Ended
from medvl.batch.reading import ready
from medvl.batch.tables import State
from medvl.errors import InputError
from medvl.inference.predictor import Predictor
from medvl.network.address import WebAddress
from medvl.network.errors import retryable
from medvl.records import Reason

if TYPE_CHECKING:
    from medvl.batch.run import Run

WAITS_S = (5.0, 10.0, 20.0, 40.0, 80.0)  # before a PACS that gave no answer is asked again
_AGAIN = (State.skipped, State.failed)
_BLOCK = 200


class Errands:
    """The jobs of a run's child processes, handed out one by one.

    Args:
        run: whose they are.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._inputs: queue.SimpleQueue[Input] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._open = 0  # inputs whose studies are not yet in the ledger
        self._making: set[str] = set()
        self._not_given: set[str] = set()  # images that are needed again, which the PACS does not give
        self._failed_to_make: Counter[str] = Counter()
        self._tries: Counter[str] = Counter()  # to fetch a study
        self.under_way = threading.Semaphore(run.options.readers + 2 * run.options.batch)
        self.over, self.idle = threading.Event(), threading.Event()
        self.seen: dict[str, str] = {}  # id to status of a study that was done before this run, empty else
        self.answers = _answers(run.predictor)
        self._of_input: dict[Path, list[str]] = {}

    def put(self, source: Input) -> None:
        """One more input."""
        with self._lock:
            self._open += 1
        self._inputs.put(source)

    def finished(self) -> bool:
        """Whether nothing is left for this process: no input, no study, no object."""
        if self._open or self._making or self._run.ledger.to_do():
            return False
        return not (self._run.options.kinds and self._unmade())

    def step(self, hand: Hand | Here) -> bool:
        """Do one errand; False when there is none.

        Reading comes first: the model begins with the first study, and further inputs are looked at while it is busy.
        """
        return self._read(hand) or self.find(hand) or self._make(hand)

    # Finding

    def find(self, hand: Hand | Here) -> bool:
        """Find the studies of one input; False when none is left."""
        try:
            source = self._inputs.get_nowait()
        except queue.Empty:
            return False
        try:
            with self._run.meter.stage("find studies"):
                if isinstance(source, WebAddress):
                    self._query(source)
                else:
                    self._look(hand, source)
        finally:
            with self._lock:
                self._open -= 1
        return True

    def _look(self, hand: Hand | Here, path: Path) -> None:
        try:
            told = self._found(hand, path)
        except (InputError, KilledError) as error:
            if self._run.stop.set:
                return  # its process was ended with the run
            state = State.skipped if isinstance(error, InputError) else State.failed
            found = self._unfit(f"input:{path.resolve()}", path, state, Reason(error.code, error.message))
        except ChildError as error:
            found = self._unfit(f"input:{path.resolve()}", path, State.failed, Reason("internal_error", str(error)))
        else:
            self._superseded(f"input:{path.resolve()}")
            found = self._enter([(study["identity"], _case(study)) for study in told["studies"]])
        with self._lock:
            self._of_input[path] = found

    def _found(self, hand: Hand | Here, path: Path) -> dict[str, Any]:
        """What a child finds in an input; one that dies meanwhile is no proof against the input, and another tries."""
        limits, tries = self._run.options.limits, 0
        while True:
            tries += 1
            try:
                return hand.ask({"op": "find", "path": str(path)}, limits.find_s)[0]
            except KilledError as error:
                if tries >= limits.attempts or error.code != "worker_died" or self._run.stop.set:
                    raise

    def _superseded(self, identity: str) -> None:
        """Studies are found in an input that ended without any before, such as a share that was away: that end goes."""
        case_id = self._run.folder.case_id(identity)
        if self._run.ledger.forget(case_id):
            shutil.rmtree(self._run.folder.folder(case_id), ignore_errors=True)

    def through(self) -> list[Path]:
        """Inputs all of whose studies have ended and need not be sent any more; each is told once."""
        with self._lock:
            open_inputs = dict(self._of_input)
        making = bool(self._run.options.kinds)
        ended = [path for path, cases in open_inputs.items() if not self._run.ledger.open_ones(cases, making=making)]
        with self._lock:
            for path in ended:
                self._of_input.pop(path, None)
        return ended

    def _query(self, address: WebAddress) -> None:
        """Enter what a PACS finds; one that does not answer is asked again."""
        entered: set[str] = set()
        for wait_s in (*WAITS_S, None):
            try:
                self._ask(address, entered)
                self._superseded(f"input:{address.url}")
                return
            except InputError as error:
                if wait_s is None or not retryable(error):
                    self._unfit(f"input:{address.url}", None, State.failed, Reason(error.code, error.message))
                    return
                self._run.told(self._run.folder.case_id(f"input:{address.url}"), "waits", error.code)
            if self._run.stop.wait(wait_s):
                return

    def _ask(self, address: WebAddress, entered: set[str]) -> None:
        block: list[tuple[str, Case]] = []
        try:
            for found in queried(address, self._run.options.access):
                if found.identity in entered:
                    continue
                entered.add(found.identity)
                block.append((found.identity, found.case))
                if len(block) == _BLOCK:
                    self._enter(block)
                    block = []
        finally:
            self._enter(block)

    def _unfit(self, identity: str, path: Path | None, state: State, reason: Reason) -> list[str]:
        """An input of which no study could be told ends as one case."""
        source = {} if path is None else {"path": str(path.resolve())}
        return self._enter([(identity, Case("", source, None, None, state, reason.code, reason.message))])

    def _enter(self, found: list[tuple[str, Case]]) -> list[str]:
        run = self._run
        cases = [replace(case, case_id=run.folder.case_id(identity)) for identity, case in found]
        again = (*_AGAIN, *((State.quarantined,) if run.options.retry_quarantined else ()))
        kept = run.ledger.add(cases, self.answers, again=again)
        lost = [case_id for case_id in kept if not run.folder.done(case_id)]
        if lost:
            run.ledger.anew(lost)
        run.dues.owe(sorted({*kept} - {*lost}), run.options.targets, refused=run.options.retry_refused)
        resumed = {case_id for case_id in kept if case_id not in lost and self.seen.get(case_id) != ""}  # else done by this run
        for case in cases:
            self.seen[case.case_id] = "resumed" if case.case_id in resumed else ""
            if case.case_id in resumed:
                run.told(case.case_id, "resumed")
            elif case.state != State.queued:
                self._write_end(case)
        return [case.case_id for case in cases]

    def _write_end(self, case: Case) -> None:
        """What finding told already: the study cannot be used."""
        run = self._run
        status = "skipped" if case.state == State.skipped else "failed"
        reasons = [Reason(case.reason, case.message)]
        run.folder.write(case.case_id, run.folder.record(case.case_id, run.predictor.bundle, status, reasons, None, None), None)
        run.told(case.case_id, str(case.state), case.reason)

    # Reading

    def _read(self, hand: Hand | Here) -> bool:
        if not self.under_way.acquire(blocking=False):
            return False
        run = self._run
        claimed = run.ledger.claim(attempts=run.options.limits.attempts)
        if claimed is None:
            self.under_way.release()
            return False
        self.seen.setdefault(claimed.case_id, "")
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
        if tried > len(WAITS_S):
            return False
        self._run.ledger.later(claimed.case_id, error.code, error.message, WAITS_S[tried - 1])
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

    # Making objects

    def _make(self, hand: Hand | Here) -> bool:
        run = self._run
        if not run.options.kinds:
            return False
        with self._lock:
            due = self._unmade()
            if not due:
                return False
            case_id = due[0][0]
            self._making.add(case_id)
        try:
            with run.meter.stage("make objects"):
                self._make_one(hand, *due[0])
        finally:
            with self._lock:
                self._making.discard(case_id)
        return True

    def _unmade(self) -> list[Any]:
        """Studies whose objects nobody makes yet, less those that the PACS does not give in this run."""
        busy = self._making | self._not_given
        return [row for row in self._run.dues.unmade(len(busy) + 1) if row[0] not in busy]

    def _make_one(self, hand: Hand | Here, case_id: str, source: dict[str, Any], series: dict[str, Any] | None) -> None:
        run, study, spool = self._run, self._run.folder.folder(case_id), self._run.folder.out / "spool" / case_id
        job = {
            "op": "objects",
            "source": source,
            "series": series,
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
            self._failed_to_make[case_id] += 1
            if run.stop.set or self._failed_to_make[case_id] < run.options.limits.attempts:
                return
            reason = Reason(error.code, error.message)
        except ChildError as error:
            reason = Reason("internal_error", str(error))
        run.dues.made(case_id, made, reason)
        if reason is not None:
            run.told(case_id, "no objects", reason.code)
        shutil.rmtree(spool, ignore_errors=True)

    def _objects(self, hand: Hand | Here, job: dict[str, Any]) -> list[dict[str, Any]]:
        """What was made; images that are gone are asked for as long as for reading them."""
        waits_s = iter(WAITS_S)
        while True:
            try:
                told, _ = hand.ask(job, self._run.options.limits.study_s)
                return list(told["objects"])
            except InputError as error:
                wait_s = next(waits_s, None) if retryable(error) else None
                if wait_s is None or self._run.stop.wait(wait_s):
                    raise


def _case(study: dict[str, Any]) -> Case:
    if "reason" in study:
        return Case("", study["source"], None, None, State.skipped, study["reason"], study["message"])
    return Case("", study["source"], study["series"], study["fingerprint"])


def _answers(predictor: Predictor) -> str:
    """What a study was asked by whom: hashes of the bundle and of a user's questions."""
    asked = predictor.asked
    return predictor.bundle.sha256[:32] + (asked["sha256"][:32] if asked else "")
