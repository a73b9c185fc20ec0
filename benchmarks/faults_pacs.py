"""A PACS that goes away and comes back, and senders that send a study twice."""

from __future__ import annotations

import hashlib
import json
import random
import socket
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from faults_check import Row, check, ledger
from faults_kills import bundle, fresh, infer, undisturbed
from faults_process import Lane
from faults_studies import cohort
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification

from medvl.errors import InputError
from medvl.network.address import PeerAddress
from medvl.network.store_scu import send

OUT_OF_ROOM = 0xA700


class Pacs:
    """A storage SCP of pynetdicom that can be shut, and that fails now and then; counts what it was sent.

    Args:
        port: to listen on.
        rng: for its failures: one object in six is refused for lack of room or the association cut, before or after it was kept.
    """

    def __init__(self, port: int, rng: random.Random) -> None:
        self.port, self._rng, self._lock = port, rng, threading.Lock()
        self.kept: dict[str, set[str]] = defaultdict(set)  # SOP instance UID to SHA-256 of what came under it
        self.sends: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self._server: Any = None

    def up(self) -> None:
        """Answer from now on."""
        entity = AE(ae_title="PACS")
        entity.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(context.abstract_syntax)
        self._server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])

    def down(self) -> None:
        """Cut what is under way and answer nobody."""
        self._server.shutdown()

    def _store(self, event: evt.Event) -> int:
        with self._lock:
            fails = self._rng.choices(("", "out of room", "cut before", "cut after"), (0.84, 0.06, 0.05, 0.05))[0]
            if fails:
                self.failures[fails] += 1
            if fails in ("", "cut after"):
                uid = str(event.request.AffectedSOPInstanceUID)
                self.sends[uid] += 1
                self.kept[uid].add(hashlib.sha256(event.request.DataSet.getvalue()).hexdigest())
        if fails.startswith("cut"):
            event.assoc.abort()
        return OUT_OF_ROOM if fails == "out of room" else 0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def pacs_row(work: Path, seed: int, *, folders: int = 2, kills: int = 5) -> Row:
    """Structured reports to a PACS that is down at first, goes away in between and fails now and then; runs are killed too."""
    started, rng = time.monotonic(), random.Random(seed)
    inputs, _ = cohort(work / "in-12", 12, 0, seed)
    reference = work / "pacs-reference"
    expected = undisturbed(inputs, reference, "--dicom", "sr")
    row = Row("PACS", "PACS down at first, away in between, out of room or cutting associations at random; runs killed as well")
    codes: Counter[int] = Counter()
    with Lane() as lane:
        for turn in range(folders):
            out = fresh(work / f"pacs-{turn}", reference)
            pacs = Pacs(free_port(), rng)
            argv = infer(inputs, out, "--dicom", "sr", "--send", f"dicom://PACS@127.0.0.1:{pacs.port}")
            err = out.with_suffix(".err")
            err.unlink(missing_ok=True)
            for k in range(kills):
                run = lane.start(argv, err)
                if k:
                    pacs.up()
                run.until(lambda run=run: bool(run.ended) or "resumed" in run.said)
                run.sleep(rng.uniform(1, 8))
                if k:
                    pacs.down()
                    run.sleep(rng.uniform(0, 3))
                run.kill()
                run.wait()
                row.injected += 1 + (k > 0)
            pacs.up()
            codes[lane.start(argv, err).wait()] += 1
            pacs.down()
            row.add(check(out, expected))
            _received(out, reference, pacs, row)
            row.injected += sum(pacs.failures.values())
    row.notes.append(f"exit codes at the end {dict(codes)}")
    row.seconds = time.monotonic() - started
    return row


def _uids(out: Path) -> set[str]:
    rows = ledger(out, "SELECT objects FROM studies WHERE objects IS NOT NULL")
    return {str(made["sop_instance_uid"]) for (objects,) in rows for made in json.loads(objects)}


def _received(out: Path, reference: Path, pacs: Pacs, row: Row) -> None:
    """What the PACS has, beside the objects that the undisturbed run made."""
    wanted = _uids(reference)
    missing, more = wanted - pacs.kept.keys(), pacs.kept.keys() - wanted
    differing = [uid for uid, contents in pacs.kept.items() if len(contents) > 1]
    waiting = ledger(out, "SELECT case_id FROM deliveries WHERE state != 'sent'")
    row.lost, row.duplicated, row.wrong = row.lost + len(missing), row.duplicated + len(more), row.wrong + len(differing)
    row.notes += [
        f"FAULT: {len(what)} {name}" for name, what in (("missing", missing), ("more", more), ("unsent", waiting)) if what
    ]
    row.notes += [f"FAULT: {len(differing)} objects came with two contents under one UID"] if differing else []
    again = sum(pacs.sends.values()) - len(pacs.kept)
    row.notes.append(f"{len(wanted)} objects made, {len(pacs.kept)} different ones received in {sum(pacs.sends.values())} sends")
    row.notes.append(f"{again} repeated under the same UID with the same bytes; failures {dict(pacs.failures)}")


def listen_row(work: Path, seed: int, *, kills: int = 6) -> Row:
    """Studies sent twice to `medvl listen`, which is killed meanwhile."""
    started, rng = time.monotonic(), random.Random(seed)
    inputs, _ = cohort(work / "in-8", 8, 0, seed)
    expected = undisturbed(inputs, work / "copies-reference")
    row = Row("listen", "each study sent twice by C-STORE to medvl listen, which is killed (SIGKILL) at random and started again")
    out, port = fresh(work / "listen", work / "copies-reference"), free_port()
    argv = ["listen", "--port", str(port), "--allow-any", "--quiet", "1", "--min-free-gb", "0.5"]
    argv += ["-b", str(bundle(out)), "-o", str(out), "--no-explain", "--readers", "1"]
    err = out.with_suffix(".err")
    err.unlink(missing_ok=True)
    sent: list[Path] = []
    todo = [*inputs, *inputs]
    rng.shuffle(todo)
    over = threading.Event()

    def sender() -> None:
        for study in todo:
            while not over.is_set():
                try:
                    answers = send(PeerAddress("MEDVL", "127.0.0.1", port), sorted(study.glob("*.dcm")), timeout_s=5.0)
                except InputError:
                    time.sleep(0.5)
                    continue
                if all(one.stored for one in answers):
                    sent.append(study)
                    break
            time.sleep(rng.uniform(0, 2))

    thread = threading.Thread(target=sender, daemon=True)
    thread.start()
    with Lane() as lane:
        for _ in range(kills):
            run = lane.start(argv, err)
            run.until(lambda run=run: "listening" in run.said)
            run.sleep(rng.uniform(2, 15))
            run.kill()
            run.wait()
            row.injected += 1
        run = lane.start(argv, err)
        run.until(lambda: not thread.is_alive(), 240)
        run.until(lambda: _through(out, len(expected)), 240)
        run.sleep(8)
        run.kill(15)
        code = run.wait(60)
        over.set()
    row.add(check(out, expected, received=True))
    row.notes += [
        f"{len(todo)} deliveries of {len(inputs)} studies, {len(sent)} of them accepted; exit code after SIGTERM {code}"
    ]
    row.seconds = time.monotonic() - started
    return row


def _through(out: Path, wanted: int) -> bool:
    time.sleep(0.5)
    return ledger(out, "SELECT count(*) FROM studies WHERE state = 'done'") == [(wanted,)]
