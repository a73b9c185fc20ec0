"""What a viewer may be given beside the results: an index of cases, a bundle, and leave to show the texts of other cases.

Each is opened when a pane first asks for it, once a process.
"""

from __future__ import annotations

import argparse
import importlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from medvl.errors import ConfigError

if TYPE_CHECKING:
    from medvl.inference.predictor import Predictor
    from medvl.models.bundle import Bundle
    from medvl.retrieval.store import Index


@dataclass(frozen=True, eq=False)
class Extras:
    """The options of this viewer.

    Args:
        index: folder that `medvl index build` wrote.
        bundle: folder of the bundle that made the results.
        show_text: whether report texts of the index may be shown at all; roles narrow it further.
        lock: held while the model answers: one question at a time.
        audit_key: key of reviews and audit log, kept elsewhere than in the results folder; None for the one in it.
        ledger: address of the server that keeps the ledger; empty where it lies in the results folder.
        dataset: folder that `medvl ingest` wrote, whose cached volumes show the index's cases.
        reviews: whether whoever is asking may review; a viewer with accounts sets it.
    """

    index: Path | None = None
    bundle: Path | None = None
    show_text: bool = False
    audit_key: Path | None = None
    ledger: str = field(default="", repr=False)
    dataset: Path | None = None
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    reviews: Callable[[], bool] = lambda: True

    def may_show_text(self) -> bool:
        """Report texts are for reviewers and above, and only of a viewer that was started with --show-text."""
        return self.show_text and self.reviews()

    @cached_property
    def opened_index(self) -> Index | None:
        """The index; None when none was given.

        Raises:
            ConfigError: there is none in the folder.
        """
        from medvl.retrieval.store import Index

        return Index.open(self.index) if self.index else None

    @cached_property
    def opened_bundle(self) -> Bundle | None:
        """The bundle, verified; None when none was given.

        Raises:
            BundleError: files are missing or altered.
        """
        from medvl.models.bundle import open_bundle

        return open_bundle(self.bundle) if self.bundle else None

    @cached_property
    def predictor(self) -> Predictor | None:
        """The bundle's model, loaded for free questions; None when no bundle was given.

        Raises:
            BundleError: as `opened_bundle`.
        """
        from medvl.inference.predictor import Predictor

        return Predictor(self.opened_bundle) if self.opened_bundle else None


WAIT_S = 20.0
LEDGER = "MEDVL_LEDGER"  # variable of the environment: arguments of a process can be read by every user of a machine
_open: list[Extras] = []


def open_extras(given: Extras) -> Extras:
    """Make these the options of this process."""
    _open[:] = [given]
    return given


def warm(given: Extras) -> None:
    """Import in the background what the first question would wait for, where there is an index or a bundle to ask."""
    if given.index or given.bundle:
        threading.Thread(target=_import_all, name="warm", daemon=True).start()


def _import_all() -> None:
    for name in ("altair", "medvl.retrieval.outside", "medvl.survival.strata", "medvl.inference.free_heat"):
        importlib.import_module(name)


def extras() -> Extras:
    """The options of this process; none when nothing was said."""
    return _open[0] if _open else open_extras(Extras())


@contextmanager
def asking() -> Iterator[Predictor]:
    """The model, for one question at a time in this process.

    Raises:
        ConfigError: others ask for too long, or no bundle was given.
        BundleError: the bundle's files are missing or altered.
    """
    given = extras()
    if not given.lock.acquire(timeout=WAIT_S):
        raise ConfigError("Others are asking the model just now. Try again in a moment.")
    try:
        if given.predictor is None:
            raise ConfigError("No bundle was given to this viewer.")
        yield given.predictor
    finally:
        given.lock.release()


def options(
    index: Path | None, bundle: Path | None, *, show_text: bool, audit_key: Path | None = None, dataset: Path | None = None
) -> list[str]:
    """Arguments of the serving process from which `parsed` reads the options."""
    given = (("--index", index), ("--bundle", bundle), ("--audit-key", audit_key), ("--dataset", dataset))
    paths = [part for name, path in given if path for part in (name, str(path.resolve()))]
    return [*paths, *(["--show-text"] if show_text else [])]


def parsed(arguments: Sequence[str]) -> Extras:
    """Options among the arguments of the serving process, and the ledger's address, which may hold a password, from `LEDGER`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--show-text", action="store_true")
    parser.add_argument("--audit-key", type=Path)
    parser.add_argument("--dataset", type=Path)
    known, _ = parser.parse_known_args(arguments)
    ledger = os.environ.get(LEDGER, "")
    return Extras(known.index, known.bundle, known.show_text, known.audit_key, ledger, known.dataset)
