"""Finding studies: what an input holds goes into the ledger, and what holds none ends with its reason."""

from __future__ import annotations

import queue
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvl.batch.hand import ChildError, Hand, Here, KilledError
from medvl.batch.inputs import Input, queried
from medvl.batch.ledger import Case
from medvl.batch.marks import by_of
from medvl.batch.tables import State
from medvl.errors import InputError
from medvl.network.address import WebAddress
from medvl.network.errors import retryable
from medvl.records import Reason

if TYPE_CHECKING:
    from medvl.batch.run import Run

WAITS_S = (5.0, 10.0, 20.0, 40.0, 80.0)  # before a PACS that gave no answer is asked again
_AGAIN = (State.skipped, State.failed)
_BLOCK = 200


class Finder:
    """The inputs of a run, looked at one by one.

    Args:
        run: whose they are.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._inputs: queue.SimpleQueue[Input] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._open = 0  # inputs whose studies are not yet in the ledger
        self._of_input: dict[Path, list[str]] = {}
        self.seen: dict[str, str] = {}  # id to status of a study that was done before this run, empty else
        self.by = by_of(run.predictor, run.options)

    @property
    def busy(self) -> bool:
        """Whether the studies of an input are not all in the ledger yet."""
        return bool(self._open)

    @property
    def expected(self) -> int:
        """Studies seen so far, and one for each input that nobody has looked at yet."""
        return len(self.seen) + self._inputs.qsize()

    def put(self, source: Input) -> None:
        """One more input."""
        with self._lock:
            self._open += 1
        self._inputs.put(source)

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
        ended = [path for path, cases in open_inputs.items() if not self._run.ledger.open_ones(cases, self._run.way)]
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
        kept = run.ledger.add(cases, self.by, again=again)
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


def _case(study: dict[str, Any]) -> Case:
    if "reason" in study:
        return Case("", study["source"], None, None, State.skipped, study["reason"], study["message"])
    return Case("", study["source"], study["series"], study["fingerprint"])
