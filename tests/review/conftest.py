"""Fixtures of the reviews' tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from reviewed import write

from medvl.review.desk import Reviews


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Reviews]:
    """The reviews of a folder with one study."""
    with Reviews(write(tmp_path / "results")) as desk:
        yield desk
