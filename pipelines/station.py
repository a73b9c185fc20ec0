"""What `medvl infer` and `medvl listen` share: a loaded bundle at work on a results folder, and how the run is told."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medvl.errors import ConfigError

from .built_in import bundle_folder
from .console import err, warn
from .findings import prompt_cache, usable
from .patient_key import patient_key

if TYPE_CHECKING:
    from medvl.batch.hand import Hand
    from medvl.batch.inputs import Input
    from medvl.batch.options import Options
    from medvl.batch.run import Run
    from medvl.batch.summary import Summary
    from medvl.models.localiser import Place

EXIT_INCOMPLETE, EXIT_STOPPED, EXIT_INTERRUPTED, EXIT_TERMINATED = 3, 4, 130, 143
KINDS = ("sr", "seg", "page", "pdf")


@dataclass(frozen=True)
class Station:
    """How a person wants studies worked on; see the options of `medvl infer`."""

    bundle: str
    out: Path
    device: str = "auto"
    findings: Path | None = None
    explain: bool = True
    readers: int | None = None
    batch: int = 4
    bf16: bool = False
    timeout_s: float = 600.0
    memory_mb: int = 8192
    retry_quarantined: bool = False
    dicom: str | None = None
    send: tuple[str, ...] = ()
    credentials: Path | None = None
    ca_bundle: Path | None = None
    client_cert: Path | None = None
    allow_plain: bool = False
    ledger: str | None = None
    deidentify: bool = False
    deidentify_key: Path | None = None
    dates: Literal["remove", "shift", "keep"] = "remove"
    retain_uids: bool = False
    retry_refused: bool = False
    patient_key: Path | None = None

    def kinds(self) -> tuple[str, ...]:
        """DICOM objects to make.

        Raises:
            ConfigError: an unknown kind.
        """
        if self.dicom is None:
            return KINDS if self.send else ()
        wanted = tuple(dict.fromkeys(part.strip() for part in self.dicom.split(",") if part.strip()))
        strange = [kind for kind in wanted if kind not in KINDS]
        if strange or not wanted:
            raise ConfigError(f"--dicom {self.dicom}: give some of {','.join(KINDS)}")
        return wanted


def open_run(station: Station, masks: Path | None = None) -> Run:
    """Load the bundle and open the results folder.

    Raises:
        BundleError: the bundle is not there, incomplete or altered.
        ConfigError: a device that is not there, an address or credentials that cannot be used, or a findings list that cannot be
            asked of the bundle.
        StoppedError: the results cannot be written.
    """
    folder = bundle_folder(station.bundle)
    station.kinds()
    with err().status("loading the model"), _waiting(station) as hands:
        chosen = device_of(station.device)
        n_readers = _readers(station, chosen)
        _leave_cores(chosen, n_readers)
        from medvl.batch.hand import Hand
        from medvl.batch.run import Run
        from medvl.inference.masks import places_from_masks
        from medvl.inference.predictor import Predictor
        from medvl.models.bundle import open_bundle

        opened = open_bundle(folder)
        given: dict[str, Place] | None = places_from_masks(masks, opened.contract.names) if masks else None
        options = options_of(station, n_readers, given)
        listed = usable(opened, station.findings) if station.findings else None
        predictor = Predictor(opened, chosen, given, findings=listed, cache=prompt_cache(), bf16=station.bf16)
        while len(hands) > n_readers:
            hands.pop().close()
        hands += [Hand() for _ in range(n_readers - len(hands))]
        run = _opened(lambda: Run(predictor, station.out, options, hands=[*hands]))
    if predictor.survival is None:
        warn("this bundle estimates no survival: it holds no survival.json")
    return run


def options_of(station: Station, n_readers: int, given: Mapping[str, Place] | None = None) -> Options:
    """The options of a run.

    Raises:
        ConfigError: an address or credentials that cannot be used.
    """
    from medvl.batch.limits import Limits
    from medvl.batch.options import Options
    from medvl.network.access import access_from
    from medvl.network.address import parse

    for target in station.send:
        parse(target, allow_plain=station.allow_plain)
    access = access_from(os.environ, station.credentials, ca_bundle=station.ca_bundle, client_cert=station.client_cert)
    return Options(
        readers=n_readers,
        batch=station.batch,
        explain=station.explain,
        kinds=station.kinds(),
        targets=station.send,
        access=access,
        allow_plain=station.allow_plain,
        limits=Limits(study_s=station.timeout_s, memory_mb=station.memory_mb),
        given=given,
        ledger=station.ledger,
        retry_quarantined=station.retry_quarantined,
        retry_refused=station.retry_refused,
        patient_key=patient_key(station.patient_key, station.out),
        **_anonymity(station),
    )


def _opened(make: Callable[[], Run]) -> Run:
    """A run on its results folder.

    Raises:
        StoppedError: folder or ledger cannot be written, because the disk is full, say.
    """
    from sqlalchemy.exc import DBAPIError

    from medvl.batch.stopping import Stop, StoppedError

    try:
        return make()
    except (OSError, DBAPIError) as error:
        stop = Stop()
        stop.because(error)
        raise StoppedError(stop.code, stop.message) from None


@contextmanager
def _waiting(station: Station) -> Iterator[list[Hand]]:
    """Children that load their libraries while this process loads its own; closed when that fails."""
    from medvl.batch.hand import Hand

    hands = [Hand() for _ in range(_readers(station, "cpu"))]
    try:
        for hand in hands:
            hand.start()
        yield hands
    except BaseException:
        for hand in hands:
            hand.close()
        raise


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def readers_for(n_cores: int, device: str, *, explain: bool) -> int:
    """How many children read where nobody says.

    A model with a device of its own needs one core; on the processor it needs half of them with evidence and a quarter without,
    where reading takes three quarters of the time (docs/explanation/throughput.md).
    """
    if device != "cpu":
        return max(1, n_cores - 1)
    return max(1, n_cores // 2 if explain else math.ceil(0.75 * n_cores))


def _readers(station: Station, device: str) -> int:
    return station.readers or readers_for(cores(), device, explain=station.explain)


def _leave_cores(device: str, n_readers: int) -> None:
    """Where the model runs on the processor it takes the cores that no child reads on."""
    import torch

    if device == "cpu":
        torch.set_num_threads(max(1, min(torch.get_num_threads(), cores() - n_readers)))


def work(run: Run, inputs: Iterable[Input] = (), until: Callable[[], bool] | None = None) -> Summary:
    """Let a run go until it ends or is told to, and leave its summary in the results folder."""
    from medvl.batch.page import write_summary

    ended = 0
    lock = threading.Lock()

    def told(case_id: str, status: str, reason: str) -> None:
        nonlocal ended
        with lock:
            ended += status not in ("no objects", "waits")
            warn(f"[{ended}/{max(ended, run.finder.expected)}] study {case_id}: {status}{f' ({reason})' if reason else ''}")

    run.tell(told)
    with terminable():
        summary = run.go(inputs, until=until)
    try:
        write_summary(summary, run.folder.out, run.predictor.bundle.name)
    except OSError as error:
        run.stop.because(error)
        summary.stopped = run.stop.code
    if run.stop.message:
        warn(f"stopped: {run.stop.message}")
    return summary


def exit_code(summary: Summary) -> int:
    """0 when all is done and sent, 3 when something is not, 4 when the run had to stop, 130 and 143 after a signal."""
    if summary.stopped == "interrupted":
        return EXIT_TERMINATED if _signals else EXIT_INTERRUPTED
    if summary.stopped:
        return EXIT_STOPPED
    return 0 if summary.complete else EXIT_INCOMPLETE


_signals: list[int] = []


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does."""

    def end(number: int, _frame: Any) -> None:
        _signals.append(number)
        raise KeyboardInterrupt

    _signals.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _anonymity(station: Station) -> dict[str, Any]:
    """How identity is taken out of DICOM objects, if at all; the key is made at first use.

    Raises:
        ConfigError: an option that would change nothing, though whoever gives it may think that identity goes.
    """
    if not station.deidentify:
        idle = {
            f"--deidentify-key {station.deidentify_key}": station.deidentify_key is not None,
            f"--dates {station.dates}": station.dates != "remove",
            "--retain-uids": station.retain_uids,
        }
        if any(idle.values()):
            given = " ".join(name for name, is_given in idle.items() if is_given)
            raise ConfigError(f"{given} without --deidentify takes no identity out; add --deidentify, or leave it away")
        return {}
    if not station.kinds():
        raise ConfigError("--deidentify is for DICOM objects, and none are made; add --dicom sr,seg,page,pdf, or --send")
    from medvl.delivery.deidentify import Deidentify

    from .deidentify import KEY_NAME, key_of

    key = key_of(station.deidentify_key or station.out.resolve().parent / KEY_NAME)
    return {"deidentify": Deidentify(retain_uids=station.retain_uids, dates=station.dates), "deidentify_key": key}


def device_of(wanted: str) -> str:
    """``cuda`` or ``cpu``; auto takes CUDA where there is one."""
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "--device cuda, but PyTorch sees no CUDA device; give --device cpu or auto, or see docs/how-to/use-a-gpu.md"
        )
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted
