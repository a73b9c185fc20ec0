"""A run: many studies through child processes, the towers and the PACS at once, each ending with a result or a reason.

Threads that wait for child processes find, read and prepare studies and make DICOM objects; the calling thread holds the
model; one thread writes results, one sends, one keeps the leases. The ledger tells them what there is to do, so that any
of them, or all, may be killed at any moment.
"""

from __future__ import annotations

import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from medvl.batch.dues import Dues
from medvl.batch.errands import Errands
from medvl.batch.finder import Finder
from medvl.batch.hand import Hand, Here
from medvl.batch.inputs import Input
from medvl.batch.ledger import Ended, Ledger
from medvl.batch.marks import way_of
from medvl.batch.options import Options
from medvl.batch.reading import Ready
from medvl.batch.sending import Sender
from medvl.batch.stopping import Stop, disk_guard
from medvl.batch.summary import Meter, Summary
from medvl.batch.tables import State
from medvl.batch.told import summary_of
from medvl.files import private
from medvl.inference.answers import CaseResult
from medvl.inference.failure import failure
from medvl.inference.predictor import Predictor
from medvl.inference.results import ResultsFolder
from medvl.records import Reason

Told = Callable[[str, str, str], None]
Threads = Sequence[threading.Thread]
_PAUSE_S, _TABLES_S = 0.05, 20.0


class Run:
    """One process's share of the work on a results folder. Several may work on the same folder at once.

    Args:
        predictor: a loaded bundle.
        out: results folder.
        options: what to do.
        told: called with (case id, status, reason code) as studies end.
        hands: children that wait to be greeted, as many as `options.readers`; started at need where none are given.
    """

    def __init__(
        self,
        predictor: Predictor,
        out: Path,
        options: Options | None = None,
        told: Told | None = None,
        hands: Sequence[Hand] = (),
    ) -> None:
        self.predictor, self.options = predictor, options or Options()
        self.folder = ResultsFolder(out, predictor.asked)
        self.ledger = Ledger(self.options.ledger or out / "ledger.sqlite")
        self.way = way_of(self.options)
        self.dues = Dues(self.ledger, self.way)
        self.meter, self.stop = Meter(), Stop()
        self._told, self._hands = told or (lambda *_: None), hands
        self._ready: queue.Queue[Ready] = queue.Queue()
        self._written: queue.Queue[tuple[Ready, CaseResult] | None] = queue.Queue(maxsize=4)
        self.finder, self.errands = Finder(self), Errands(self)
        self._sender = Sender(self.dues, out / "studies", self.options.access, allow_plain=self.options.allow_plain)

    def go(self, inputs: Iterable[Input] = (), *, until: Callable[[], bool] | None = None) -> Summary:
        """Work until every study of `inputs` has ended and what is owed was sent.

        Args:
            inputs: more can be given to `finder.put` meanwhile.
            until: keeps the run waiting for more inputs while it says False.
        """
        self._guarded(disk_guard, self.folder.out, self.options.limits.min_free_bytes)
        if self.stop.set:
            for hand in self._hands:
                hand.close()
            return summary_of(self)
        self.folder.tidy()
        self._close_objects()
        for source in inputs:
            self.finder.put(source)
        greeting = self.options.greeting(self.predictor.bundle.folder, self.folder.key)
        started = [*self._hands] or [Hand() for _ in range(self.options.readers)]
        for hand in started:
            hand.greet(greeting)
        hands: list[Hand | Here] = [*started] or [Here(greeting)]
        threads = [threading.Thread(target=self._guarded, args=(self._serve, hand), daemon=True) for hand in hands]
        writer = threading.Thread(target=self._guarded, args=(self._write_all,), daemon=True)
        others = [threading.Thread(target=self._guarded, args=(part,), daemon=True) for part in (self._keep, self._send_all)]
        for thread in (*threads, writer, *others):
            thread.start()
        try:
            self._guarded(self._think, until)
        except KeyboardInterrupt:
            self.stop.now("interrupted", "the run was interrupted; the same command goes on with it")
        finally:
            self._wind_up(hands, threads, writer, others)
        return summary_of(self)

    def _wind_up(self, hands: Sequence[Hand | Here], threads: Threads, writer: threading.Thread, others: Threads) -> None:
        self.errands.over.set()
        if self.stop.set:
            for hand in hands:
                hand.kill()
        for thread in threads:
            thread.join()
        self._written.put(None)
        writer.join()
        for hand in hands:
            self.meter.child_peak_mb = max(self.meter.child_peak_mb, hand.peak_mb)
            hand.close()
        self.errands.idle.set()
        for thread in others:
            thread.join()
        with suppress(Exception):  # what cannot be noted now is found by the next run, from the lease
            self.ledger.untouched(self.ledger.mine())
        try:
            self.tables()
        except OSError as error:
            self.stop.because(error)

    def tell(self, told: Told) -> None:
        """Call `told` from now on."""
        self._told = told

    def _close_objects(self) -> None:
        """Objects that an earlier version made are for their owner alone too."""
        for objects in (self.folder.out / "studies").glob("*/dicom"):
            with suppress(OSError):  # of another account, or gone by now
                private(objects)

    # The parts, one thread each

    def _guarded(self, part: Callable[..., None], *args: object) -> None:
        """Run one part; what nobody foresaw stops the run, and is told without its words."""
        try:
            part(*args)
        except Exception as error:
            self.stop.because(error)

    def _serve(self, hand: Hand | Here) -> None:
        hand.start()
        while not self.stop.set:
            if not self.errands.step(hand):
                if self.errands.over.is_set():
                    return
                time.sleep(_PAUSE_S)

    def _think(self, until: Callable[[], bool] | None) -> None:
        """Take what is ready to the towers until nothing is left to do."""
        told = time.monotonic()
        while not self.stop.set:
            batch = self._gather()
            if batch:
                self._answer(batch)
            elif (until is None or until()) and self.errands.finished():
                return
            if time.monotonic() - told > _TABLES_S:
                told = time.monotonic()
                self.places()

    def _gather(self) -> list[Ready]:
        batch: list[Ready] = []
        with suppress(queue.Empty):
            batch.append(self._ready.get(timeout=2 * _PAUSE_S))
            while len(batch) < self.options.batch:
                batch.append(self._ready.get_nowait())
        return batch

    def _answer(self, batch: list[Ready]) -> None:
        """Answer studies together; when that fails, one by one, so that only the one at fault is lost."""
        try:
            with self.meter.stage("model"):
                results = self.predictor.answer([r.prepared for r in batch], explain=self.options.explain)
        except Exception as error:
            if len(batch) > 1:
                for one in batch:
                    self._answer([one])
                return
            reason = failure(error)
            self.ends(batch[0].claimed.case_id, Ended(State.failed, reason.code, reason.message, series=batch[0].series))
            self.errands.under_way.release()
            return
        for one, result in zip(batch, results, strict=True):
            self._written.put((one, result))

    def _write_all(self) -> None:
        while (item := self._written.get()) is not None:
            if self.stop.set:
                continue
            try:
                with self.meter.stage("write"):
                    self._write(*item)
            except Exception as error:
                self.stop.because(error)
            finally:
                self.errands.under_way.release()

    def _write(self, ready: Ready, result: CaseResult) -> None:
        case_id = ready.claimed.case_id
        record = self.folder.record(case_id, self.predictor.bundle, "done", list(ready.reasons), ready.series, result)
        record["pixels_sha256"] = ready.pixels
        self.folder.write(case_id, record, result)
        self.meter.add(result.timings_s)
        how = Ended(State.done, "", "", ready.pixels, result.timings_s, ready.source, ready.series)
        if self.ledger.end(case_id, how, self.options.targets, self.way):
            self._told(case_id, "done", "")
        if not self.options.kinds:  # else they are needed once more
            shutil.rmtree(self.folder.out / "spool" / case_id, ignore_errors=True)

    def _send_all(self) -> None:
        """Send what is due; after all else is done, for as long as the PACS may take."""
        if not self.options.targets:
            return
        patience: float | None = None
        while not self.stop.set:
            with self.meter.stage("send"):
                busy = self._sender.step()
            if busy:
                continue
            if self.errands.idle.is_set():
                patience = patience or time.monotonic() + self.options.send_wait_s
                if not self.dues.waiting() or time.monotonic() > patience:
                    return
            time.sleep(5 * _PAUSE_S)

    def _keep(self) -> None:
        """Say that we live, and watch the disk."""
        while not (self.errands.idle.wait(self.ledger.lease_s / 6) or self.stop.set):
            self.ledger.beat()
            disk_guard(self.folder.out, self.options.limits.min_free_bytes)

    # What the parts share

    def ready(self, study: Ready) -> None:
        """A study that was read goes to the towers."""
        self._ready.put(study)

    def ends(self, case_id: str, how: Ended) -> None:
        """A study ends without result: its reason is written where its findings would be."""
        reasons = [Reason(how.reason, how.message)]
        status = "failed" if how.state == State.quarantined else str(how.state)
        self.folder.write(case_id, self.folder.record(case_id, self.predictor.bundle, status, reasons, how.series, None), None)
        self.ledger.end(case_id, how)
        self._told(case_id, str(how.state), how.reason)

    def told(self, case_id: str, status: str, reason: str = "") -> None:
        """Pass on how a study ended."""
        self._told(case_id, status, reason)

    def places(self) -> None:
        """Write where each study lies, for the viewer."""
        rows = self.ledger.studies()
        found = {r["case_id"]: r["source"] for r in rows if "path" in r["source"]}
        self.folder.places({k: {"path": v["path"], "series_key": v.get("series_key", "")} for k, v in found.items()})

    def tables(self) -> None:
        """Write the tables and where each study lies."""
        self.places()
        self.folder.tables()
