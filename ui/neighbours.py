"""Images of the index's cases: volumes that `medvl ingest` cached in the dataset which the index was made from."""

from __future__ import annotations

import re
from pathlib import Path

from medvl.errors import InputError

from .extras import extras
from .pictures import Picture
from .study import Study
from .volumes import image_picture

MARK = "dataset/"  # before the id of a case whose image lies in the dataset and not in the results
_CASE = re.compile(r"[0-9a-f]{12}")


def neighbour(case: str) -> Study | None:
    """A case of the dataset as a study without findings; None where the viewer was given no dataset that holds its image."""
    path = _path(case)
    return Study(case_id=MARK + case) if path is not None and path.is_file() else None


def is_neighbour(case_id: str) -> bool:
    """Whether an id is that of a case of the dataset."""
    return case_id.startswith(MARK)


def version(case_id: str) -> str:
    """Changes when the volume is written anew; ``"0"`` when there is none."""
    path = _path(case_id.removeprefix(MARK))
    try:
        return "0" if path is None else str(path.stat().st_mtime_ns)
    except OSError:
        return "0"


def read_neighbour(case_id: str) -> Picture:
    """The image of a case of the dataset.

    Raises:
        InputError: ``source_gone`` or ``unreadable_file``, with a message for the page.
    """
    from medvl.imaging.volume_file import read_volume

    path = _path(case_id.removeprefix(MARK))
    if path is None or not path.is_file():
        raise InputError("source_gone", "The dataset does not hold the images of this case.")
    volume = read_volume(path)
    return image_picture(volume.hu, volume.geometry)


def _path(case: str) -> Path | None:
    """Where the case's volume lies; None for what no dataset calls a case, so that no id leads elsewhere."""
    folder = extras().dataset
    return folder / "volumes" / f"{case}.mvol" if folder is not None and _CASE.fullmatch(case) else None
