"""What every page and route of one viewer process shares: the results folder, the signing key and the pictures in memory."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from itsdangerous import BadData, URLSafeTimedSerializer

from medvl.errors import InputError

from .neighbours import is_neighbour, read_neighbour
from .neighbours import version as neighbour_version
from .pictures import Picture, PictureCache
from .read_ahead import ReadAhead
from .results import study_file
from .volumes import read_heatmap, read_image

TOKEN_SECONDS = 15 * 60
IMAGE = "image"
MADE, MADE_HELD = "made/", 64


@dataclass(frozen=True, eq=False)
class Station:
    """One results folder being viewed.

    Args:
        root: the results folder.
        secret: key that signs image links; new in every process, so that no link outlives it.
        pictures: images and heat maps in memory.
        made: the last maps that were made for a page and lie in no file, by name.
    """

    root: Path
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    pictures: PictureCache = field(default_factory=PictureCache, repr=False)
    made: OrderedDict[str, Picture] = field(default_factory=OrderedDict, repr=False)

    @cached_property
    def ahead(self) -> ReadAhead:
        """What reads the next study's image before it is asked for."""
        return ReadAhead(lambda case_id: self.picture(case_id, IMAGE).voxels, lambda: import_module("medvl.imaging.load"))

    def picture(self, case_id: str, name: str) -> Picture:
        """The image (``name == "image"``) or a heat map (its path in the study folder).

        Raises:
            InputError: it is missing or unreadable; the message is for the page.
        """
        if name.startswith(MADE):
            if (found := self.made.get(name)) is None:
                raise InputError("map_gone", "This map is no longer kept. Ask again to see it.")
            return found
        key = (case_id, name, self.version(case_id, name))
        if is_neighbour(case_id):
            if name != IMAGE:
                raise InputError("no_map", "There are no maps of cases of the dataset.")
            return self.pictures.get(key, lambda: read_neighbour(case_id))
        if name == IMAGE:
            return self.pictures.get(key, lambda: read_image(self.root, case_id))
        return self.pictures.get(key, lambda: read_heatmap(self.root, case_id, name))

    def keep(self, picture: Picture) -> str:
        """Keep a map for the pages of this process; a name that nobody can guess, for `picture`."""
        name = f"{MADE}{secrets.token_hex(8)}"
        self.made[name] = picture
        while len(self.made) > MADE_HELD:
            self.made.popitem(last=False)
        return name

    def version(self, case_id: str, name: str) -> str:
        """Changes when the picture's file in the results folder is written anew; ``"0"`` when there is none.

        Raises:
            InputError: ``file_outside_study``.
        """
        if is_neighbour(case_id):
            return neighbour_version(case_id)
        try:
            return str(study_file(self.root, case_id, "image.nii.gz" if name == IMAGE else name).stat().st_mtime_ns)
        except OSError:
            return "0"

    def sign(self, case_id: str, name: str, holder: str = "") -> str:
        """A token that opens one picture for `TOKEN_SECONDS`, as long as `holder`, a mark of a sign-in, has not signed out."""
        return str(self._serializer.dumps([case_id, name, holder]))

    def opens(self, token: str, signed_in: Callable[[str], bool] = lambda _: True) -> tuple[str, str] | None:
        """Case id and picture name of a token; None when it was altered, is too old, or its holder is not signed in."""
        try:
            payload: Any = self._serializer.loads(token, max_age=TOKEN_SECONDS)
        except BadData:
            return None
        case_id, name, holder = payload
        return (str(case_id), str(name)) if signed_in(str(holder)) else None

    @property
    def _serializer(self) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(self.secret, salt="medvl-picture")


_open: list[Station] = []


def open_station(root: Path) -> Station:
    """Make `root` the results folder of this process."""
    _open[:] = [Station(root)]
    return _open[0]


def station() -> Station:
    """The station of this process.

    Raises:
        RuntimeError: no results folder was opened.
    """
    if not _open:
        raise RuntimeError("no results folder is open; start the viewer with: medvl view --results DIR")
    return _open[0]
