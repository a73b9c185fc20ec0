"""All checks of one machine, in the order in which a person would mend things."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from medvl.doctor.accelerator import check_accelerator
from medvl.doctor.bundles import check_bundle, check_notices
from medvl.doctor.check import Check, guarded
from medvl.doctor.decoders import check_decoders
from medvl.doctor.machine import check_machine
from medvl.doctor.packages import check_packages
from medvl.doctor.pacs import check_listen, check_pacs
from medvl.doctor.storage import check_storage


def examine(
    *, bundle: Path | None = None, out: Path | None = None, pacs: str | None = None, listen: int | None = None
) -> list[Check]:
    """Look at this machine. Nothing leaves it unless `pacs` is given.

    Args:
        bundle: folder of the bundle that will be used.
        out: folder for results; what is written there for the test goes away again.
        pacs: address to greet.
        listen: port that `medvl listen` will take.
    """
    looks: dict[str, Callable[[], Iterable[Check]]] = {
        "packages": check_packages,
        "accelerator": check_accelerator,
        "machine": check_machine,
        "decoders": check_decoders,
        "bundle": lambda: check_bundle(bundle),
        "storage": lambda: check_storage(out),
        "network": lambda: [*check_pacs(pacs), *check_listen(listen)],
        "notices": check_notices,
    }
    return [check for area, look in looks.items() for check in guarded(area, look)]
