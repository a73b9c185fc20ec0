"""Pictures as the browser takes them: voxels that are there, or that a thread is still reading, one slice of them earlier."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.geometry import Geometry

Early = Callable[[int], NDArray[Any]]


class Picture:
    """Voxels ready to send to the browser, or on their way.

    Args:
        voxels: (D, H, W) read-only, C-contiguous; little-endian int16 HU for an image, uint8 0..255 for a heat map. A future
            where they are still being read.
        geometry: where they lie; the nearest axes of an image are SPL.
        early: reads axial slice k, (H, W), before the others have come; None where that is no faster.
    """

    def __init__(self, voxels: NDArray[Any] | Future[NDArray[Any]], geometry: Geometry, *, early: Early | None = None) -> None:
        self.geometry, self._early = geometry, early
        self._coming = voxels if isinstance(voxels, Future) else _there(voxels)
        self.dtype = np.dtype("<i2") if isinstance(voxels, Future) else voxels.dtype  # what comes later are images

    @property
    def voxels(self) -> NDArray[Any]:
        """All of them; waits until they are read.

        Raises:
            InputError: they could not be read; the message is for the page.
        """
        return self._coming.result()

    @property
    def failed(self) -> bool:
        """Whether it is known that they cannot be read."""
        return self._coming.done() and self._coming.exception() is not None

    @property
    def n_bytes(self) -> int:
        """Bytes of all voxels, come or not."""
        return int(np.prod(self.geometry.shape_dhw, dtype=np.int64)) * self.dtype.itemsize

    @property
    def oblique_deg(self) -> float:
        """Largest angle between a grid axis and the patient axis it is named after, in degrees."""
        best = np.abs(self.geometry.directions).max(axis=0)
        return float(np.degrees(np.arccos(np.clip(best, 0.0, 1.0))).max())

    def part(self, first: int, last: int) -> memoryview:
        """Bytes `first` to `last`, both included, in C order; waits for no more of the voxels than it needs to.

        Raises:
            InputError: as `voxels`.
        """
        _, height, width = self.geometry.shape_dhw
        size = height * width * self.dtype.itemsize
        if self._early is not None and not self._coming.done() and first % size == 0 and last == first + size - 1:
            return memoryview(np.ascontiguousarray(self._early(first // size), dtype=self.dtype).data).cast("B")
        return memoryview(self.voxels.data).cast("B")[first : last + 1]


def _there(voxels: NDArray[Any]) -> Future[NDArray[Any]]:
    voxels.setflags(write=False)
    come: Future[NDArray[Any]] = Future()
    come.set_result(voxels)
    return come


def reading(read: Callable[[], NDArray[Any]]) -> Future[NDArray[Any]]:
    """What `read` gives or raises, from a thread that begins at once; the array is read-only."""
    coming: Future[NDArray[Any]] = Future()

    def go() -> None:
        try:
            voxels = read()
        except BaseException as error:
            coming.set_exception(error)
        else:
            voxels.setflags(write=False)
            coming.set_result(voxels)

    threading.Thread(target=go, name="images", daemon=True).start()
    return coming


class PictureCache:
    """Pictures by key, least recently used dropped first once they hold more than `max_bytes`; safe for many threads.

    It is not a Streamlit cache because the image route, which runs outside any page script, shares it.
    """

    def __init__(self, max_bytes: int = 2 << 30) -> None:
        self._max_bytes = max_bytes
        self._items: OrderedDict[tuple[str, ...], Picture] = OrderedDict()
        self._locks: dict[tuple[str, ...], threading.Lock] = {}
        self._guard = threading.Lock()

    def get(self, key: tuple[str, ...], read: Callable[[], Picture]) -> Picture:
        """The picture under `key`, from `read` when it is not held; two askers at once read it once; what failed is read anew."""
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            with self._guard:
                if key in self._items and not self._items[key].failed:
                    self._items.move_to_end(key)
                    return self._items[key]
            picture = read()
            with self._guard:
                self._items[key] = picture
                self._drop()
            return picture

    def _drop(self) -> None:
        while len(self._items) > 1 and self.n_bytes > self._max_bytes:
            key, _ = self._items.popitem(last=False)
            self._locks.pop(key, None)

    @property
    def n_bytes(self) -> int:
        """Bytes held by all pictures."""
        return sum(picture.n_bytes for picture in self._items.values())
