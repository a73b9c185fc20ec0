"""A run spread over the GPUs and machines of a Ray cluster, each worker at work on the one ledger.

Ray starts the workers and tells when one dies; who does which study is the ledger's business, as it is among several runs on
one folder. A worker that is killed is replaced, and its studies go to whoever asks next.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from medvl.batch.hand import Hand
from medvl.batch.inputs import Input
from medvl.batch.options import Options
from medvl.batch.run import Run, Told
from medvl.batch.summary import Summary
from medvl.batch.tables import ENDS, State
from medvl.batch.told import summary_of
from medvl.errors import ConfigError
from medvl.inference.predictor import Predictor
from medvl.models.bundle import open_bundle
from medvl.text.prompts import FindingList

if TYPE_CHECKING:
    from medvl.models.bundle import Bundle

_LOOKS_S = 1.0
RESTARTS = 3


@dataclass(frozen=True)
class Share:
    """What every worker is told: how it is to work, and where.

    Args:
        bundle: folder; out: results folder; on a cluster both lie on a disk that all machines share.
        options: of the run.
        findings: a user's questions.
        device: of the model.
        bf16: run the image tower in bfloat16.
        cache: folder of embedded prompts.
        threads: of the model, where it runs on the CPU.
    """

    bundle: Path
    out: Path
    options: Options
    findings: FindingList | None = None
    device: str = "cpu"
    bf16: bool = False
    cache: Path | None = None
    threads: int = 1


@dataclass(frozen=True)
class Crew:
    """Who works.

    Args:
        workers: how many at once.
        gpus: of each; may be a fraction.
        address: of a cluster that runs already, such as ``auto`` or ``ray://head:10001``; None starts one on this machine.
    """

    workers: int = 2
    gpus: float = 0.0
    address: str | None = None


class Worker:
    """One process of the cluster: loads the bundle once and works until no study is left."""

    def __init__(self, share: Share) -> None:
        import torch

        if share.device == "cpu":
            torch.set_num_threads(share.threads)
        opened = open_bundle(share.bundle)
        predictor = Predictor(
            opened, share.device, share.options.given, findings=share.findings, cache=share.cache, bf16=share.bf16
        )
        self._share, self._predictor = share, predictor

    def go(self) -> dict[str, Any]:
        """Work until every study has ended, those of workers that die meanwhile too; returns a receipt."""
        run = Run(self._predictor, self._share.out, self._share.options)
        return run.go(until=lambda: run.ledger.counts()[State.running] == 0).as_dict()


def spread(share: Share, crew: Crew, inputs: Iterable[Input], told: Told, say: Callable[[str], None]) -> Summary:
    """Find the studies of `inputs`, have the workers do them, and tell how they ended.

    Args:
        share: what to do.
        crew: who does it.
        inputs: where studies lie.
        told: called with (case id, status, reason code) as studies end.
        say: called with what a person should know of the workers.

    Raises:
        ConfigError: Ray is not installed, or the ledger of a cluster is a file.
    """
    ray = _ray(share, crew)
    run = Run(cast("Predictor", _asker(open_bundle(share.bundle), share, crew)), share.out, share.options, told)
    with redirect_stdout(sys.stderr):  # Ray prints there that a worker died, between what `--json` prints
        try:
            with own_signals():
                _start(ray, share, crew)
            actor = ray.remote(num_cpus=1 + share.options.readers, num_gpus=crew.gpus, max_restarts=0)(Worker)
            workers = [actor.remote(share) for _ in range(crew.workers)]
            _find(run, inputs)
            if not run.stop.set:
                _watch(ray, run, actor, share, workers, say)
        except KeyboardInterrupt:
            run.stop.now("interrupted", "the run was interrupted; the same command goes on with it")
        finally:
            ray.shutdown()
    run.tables()
    return summary_of(run)


def _find(run: Run, inputs: Iterable[Input]) -> None:
    hand = Hand(run.options.greeting(run.predictor.bundle.folder, run.folder.key))
    try:
        for source in inputs:
            run.finder.put(source)
        while not run.stop.set and run.finder.find(hand):
            continue
    except OSError as error:
        run.stop.because(error)
    finally:
        hand.close()


def _watch(ray: Any, run: Run, actor: Any, share: Share, workers: Sequence[Any], say: Callable[[str], None]) -> None:
    """Tell what ends, replace who dies, until nobody works any more."""
    at_work = {worker.go.remote(): worker for worker in workers}
    known: set[str] = {row["case_id"] for row in run.ledger.studies() if row["state"] in ENDS}
    restarts = 0
    while at_work:
        ended, _ = ray.wait(list(at_work), timeout=_LOOKS_S)
        for row in run.ledger.studies():
            if row["state"] in ENDS and row["case_id"] not in known:
                known.add(row["case_id"])
                run.finder.seen.setdefault(row["case_id"], "")
                run.told(row["case_id"], str(row["state"]), row["reason"] if row["state"] != State.done else "")
        for future in ended:
            del at_work[future]
            try:
                _add(run, ray.get(future))
            except ray.exceptions.RayActorError:
                restarts += 1
                say(f"a worker died; {'another takes its place' if restarts <= RESTARTS else 'the others go on'}")
                if restarts <= RESTARTS:
                    new = actor.remote(share)
                    at_work[new.go.remote()] = new
            except ray.exceptions.RayTaskError as error:
                run.stop.because(error.cause if isinstance(error.cause, Exception) else RuntimeError("a worker failed"))


def _add(run: Run, told: dict[str, Any]) -> None:
    """A worker's receipt to that of all; what stopped it is told of the whole run."""
    receipt = told["receipt"]
    run.meter.add(receipt["stage_seconds"])
    run.meter.child_peak_mb = max(run.meter.child_peak_mb, receipt["peak_memory_mb"]["largest_reader"])
    run.meter.worker_peak_mb = max(run.meter.worker_peak_mb, receipt["peak_memory_mb"]["run"])
    if told["stopped"]:
        run.stop.now(told["stopped"], "a worker had to stop; see the reason and run the same command again")


def _asker(bundle: Bundle, share: Share, crew: Crew) -> SimpleNamespace:
    """What finding and telling need of a predictor, without its weights."""
    asked = share.findings
    told = None if asked is None else {"name": asked.name, "sha256": asked.sha256}
    device = f"{crew.workers} Ray workers, {share.device}"
    return SimpleNamespace(bundle=bundle, asked=told, device=device, bf16=share.bf16)


def _ray(share: Share, crew: Crew) -> Any:
    """Ray itself, told to report to nobody."""
    if crew.address is not None and not isinstance(share.options.ledger, str):
        raise ConfigError(
            "workers on other machines need a ledger on a server: --ledger postgresql://..., with --out on a disk that all of "
            "them share; an SQLite file is not safe on a network disk"
        )
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_worker_niceness", "0")  # by default Ray lets everything else go before its workers
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConfigError("--engine ray needs its extra: pip install 'medvl[cluster]'") from error
    return ray


@contextmanager
def own_signals() -> Iterator[None]:
    """Keep the handler of SIGTERM: Ray puts one of its own in place, which leaves in the middle of everything."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _start(ray: Any, share: Share, crew: Crew) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if crew.address is not None:
        ray.init(address=crew.address, **quiet)
        return
    n_cores = crew.workers * (1 + share.options.readers)
    ray.init(num_cpus=n_cores, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
