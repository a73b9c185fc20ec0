"""A plane turned about the cursor, in a real headless Chromium, against scipy and polar decomposition on the same geometry."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from browser_page import BRIGHT, COLOURED, opened, plane, serving, settles, watched, wheel
from results_folder import finding, save_nifti, study_json
from scipy.linalg import polar
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from medvl.geometry import Geometry

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
AXES = {"axial": (2, 1, 0), "coronal": (2, 0, 1), "sagittal": (1, 0, 2)}  # across, down and through, as axes of the volume
SHAPE, SPACING, START = (26, 44, 38), (3.0, 1.3, 1.1), (13, 20, 19)
MARKER = (13, 14, 8)  # low column: the patient's right
TURN = Rotation.from_euler("xyz", [11, -7, 8], degrees=True).as_matrix()  # the scan's own axes, off the patient's


def affine(shear: float = 0.0) -> np.ndarray:
    """(4, 4) from index to LPS mm of an oblique SPL grid; `shear` mm of the first axis run along the second, as a gantry does."""
    matrix = np.eye(4)
    matrix[:3, :3] = TURN @ np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) @ np.diag(SPACING)
    matrix[:3, 0] += shear * TURN[:, 1]
    matrix[:3, 3] = np.array([4.0, -12.0, 250.0]) - matrix[:3, :3] @ (np.array(SHAPE) / 2)
    return matrix


GRID = Geometry(SHAPE, affine())


def waves() -> np.ndarray:
    """(26, 44, 38) int16 HU: waves of another length along every axis, so that no two places look alike."""
    d, h, w = np.indices(SHAPE)
    return np.rint(40 + 60 * np.sin(d / 3.1) + 70 * np.sin(h / 6.3 + 1) + 50 * np.cos(w / 5.7) + w).astype(np.int16)


@dataclass(frozen=True)
class Turned:
    """Where a turned plane lies: its screen's axes in LPS."""

    right: np.ndarray
    down: np.ndarray

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.right, self.down)


def turned(matrix: np.ndarray, name: str, angles: tuple[float, float]) -> Turned:
    """The plane whose lines in the two others are turned by `angles` degrees: the orthonormal pair nearest to those lines."""
    across, down, through = (matrix[:3, axis] for axis in AXES[name])
    u, v, n = np.linalg.qr(np.stack([across, down if name == "axial" else -down, through], 1))[0].T
    u, v, n = (axis * np.sign(axis @ like) for axis, like in ((u, across), (v, down if name == "axial" else -down), (n, through)))
    a, b = np.radians(angles) * ((-1, 1) if name == "coronal" else (1, 1))  # counter-clockwise: axial shows the back below
    lines = np.stack([np.cos(a) * u + np.sin(a) * n, np.cos(b) * v + np.sin(b) * n], 1)
    return Turned(*polar(lines)[0].T)


def letters(direction: np.ndarray) -> str:
    """A direction as DICOM writes it."""
    order = [k for k in np.argsort(-np.abs(direction)) if abs(direction[k]) > np.sin(np.radians(0.5))]
    return "".join(("LPS" if direction[k] > 0 else "RAI")[k] for k in order)


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[sync_api.Page]":
    """A viewer on an oblique scan of waves with metal, and evidence there, in the patient's right; open for all tests."""
    folder = tmp_path_factory.mktemp("oblique")
    study = folder / "results" / "studies" / "a1waves"
    place = GRID.to_lps(MARKER)
    save_nifti(study / "mass.nii.gz", np.ones((5, 5, 5), np.float32), Geometry.centered(place, (5, 5, 5), (2.0, 2.0, 2.0)))
    entry = finding("mass", "kidney_right", 0.9, "present", heatmap="mass.nii.gz", peak_lps=GRID.to_lps(START).tolist())
    hu = waves()
    z, y, x = MARKER
    hu[z - 1 : z + 2, y - 2 : y + 3, x - 2 : x + 3] = 3000
    save_nifti(study / "image.nii.gz", hu, GRID)
    (study / "findings.json").write_text(json.dumps(study_json("a1waves", findings=[entry])))
    with serving(folder / "results", folder / "server.log") as url, watched(browser) as tab:
        yield opened(tab, url)


@pytest.fixture
def tab(page) -> "sync_api.Page":
    """The page as it was opened: the cursor in the middle, planes straight."""
    page.get_by_role("button", name="Reset").click()
    page.get_by_label("Evidence", exact=True).check()
    if not at(page, START):
        page.get_by_role("button", name="Mass").first.click()
    settles(lambda: at(page, START))
    return page


def at(tab, index: tuple[float, float, float], within: float = 0.06) -> bool:
    """Whether the status line tells the place of a voxel index in mm."""
    numbers = re.findall(r"([LRPASI]) ([\d.]+)", tab.locator(".status").inner_text())[:3]
    told = [float(number) * (1 if letter in "LPS" else -1) for letter, number in numbers]
    return bool(np.abs(np.array(told) - GRID.to_lps(index)).max() <= within)


# Reslices in the page's own modules: the sheet's values, where its pixels lie, and how far each row reaches.
RESLICE = """async ({ shape, toPatient, fromPatient, values, cursor, asked }) => {
  const from = (name) => import(performance.getEntriesByType("resource").find((entry) => entry.name.endsWith(name)).name);
  const [{ Volume }, { Oblique }, { PLANES }, { greys }] = await Promise.all(["volume.js", "oblique.js", "planes.js", "palette.js"].map(from));
  const volume = new Volume({ id: "test", shape, toPatient, fromPatient, axes: "SPL" }), table = greys(400, 40, false);
  volume.hu.set(values.split(","));
  return asked.map(([name, angles, quick]) => {
    const oblique = new Oblique(volume, PLANES.find((kind) => kind.name.toLowerCase() === name), cursor);
    oblique.turn(angles);
    const { left, top, pitch, width, height } = oblique.paint(table, quick);
    return { left, top, pitch, width, height, values: oblique.values.join(), runs: oblique.runs.join() };
  });
}"""  # noqa: E501


def text(values: np.ndarray) -> str:
    return ",".join(map(str, values.ravel().tolist()))


def numbers(told: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.array(told.split(","), int).reshape(shape)


def resliced(tab, matrix: np.ndarray, hu: np.ndarray, asked: list) -> list[dict]:
    volume = {"shape": hu.shape, "toPatient": matrix.ravel().tolist(), "fromPatient": np.linalg.inv(matrix).ravel().tolist()}
    return tab.evaluate(RESLICE, volume | {"values": text(hu), "cursor": START, "asked": asked})


def indices(matrix: np.ndarray, sheet: dict, place: Turned) -> np.ndarray:
    """(3, rows, columns) voxel index of every pixel of a sheet about the cursor."""
    x, y = (
        sheet[edge] + (np.arange(sheet[size]) + 0.5) * sheet["pitch"] for edge, size in (("left", "width"), ("top", "height"))
    )
    point = (matrix @ [*START, 1])[:3]
    lps = point[:, None, None] + place.right[:, None, None] * x + place.down[:, None, None] * y[:, None]
    inverse = np.linalg.inv(matrix)
    return np.tensordot(inverse[:3, :3], lps, 1) + inverse[:3, 3, None, None]


@pytest.mark.parametrize("shear", [0.0, 0.8])
def test_every_pixel_is_that_of_scipy(tab, shear: float) -> None:
    matrix, hu = affine(shear), waves()
    asked = [(name, angles) for name in AXES for angles in ((20.0, 0.0), (-12.5, 31.0), (80.0, -75.0))]
    sheets = resliced(tab, matrix, hu, [(*one, quick) for one in asked for quick in (False, True)])
    for k, (name, angles) in enumerate(asked):
        for sheet, order in zip(sheets[2 * k : 2 * k + 2], (1, 0), strict=True):
            index = indices(matrix, sheet, turned(matrix, name, angles))
            inside = np.all([(i > -0.5) & (i < n - 0.5) for i, n in zip(index, SHAPE, strict=True)], axis=0)
            edge = np.any([np.abs(np.abs(i - (n - 1) / 2) - n / 2) < 1e-5 for i, n in zip(index, SHAPE, strict=True)], axis=0)
            runs, pixels = numbers(sheet["runs"], (-1, 2)), np.arange(inside.size).reshape(inside.shape)
            drawn = (pixels >= runs[:, :1]) & (pixels < runs[:, 1:])
            np.testing.assert_array_equal(drawn[~edge], inside[~edge])
            assert inside.any() and not inside[[0, -1]].all() and not inside[:, [0, -1]].all()  # the sheet holds the whole cut
            values = numbers(sheet["values"], inside.shape)[drawn]
            expected = map_coordinates(hu.astype(float), index[:, drawn], order=order, mode="nearest")
            if order:
                assert np.abs(values - expected).max() <= 0.5 + 1e-6, (name, angles)
            else:
                halves = np.any(np.abs(index[:, drawn] % 1 - 0.5) < 1e-6, axis=0)
                np.testing.assert_array_equal(values[~halves], expected[~halves])


def test_no_turn_is_the_slice_itself(tab) -> None:
    matrix = affine() @ np.diag([1.1 / 3.0, 1.1 / 1.3, 1.0, 1.0])  # the same pixels as the voxels
    for (name, (_, down, through)), sheet in zip(
        AXES.items(), resliced(tab, matrix, waves(), [(n, (0, 0), False) for n in AXES]), strict=True
    ):
        expected = np.take(waves(), START[through], through)
        expected = expected if name == "axial" else expected[::-1]
        assert (sheet["height"], sheet["width"]) == expected.shape == (SHAPE[down], sheet["width"])
        np.testing.assert_array_equal(numbers(sheet["values"], expected.shape), expected)


GREYS = """(canvas) => {
  const { width, height } = canvas, data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  return [width, height, data.filter((_, k) => k % 4 === 0).join()];
}"""


def greys(tab, name: str) -> np.ndarray:
    width, height, values = plane(tab, name).locator("canvas").evaluate(GREYS)
    return numbers(values, (height, width))


def layout(tab, name: str) -> tuple[float, np.ndarray]:
    """Screen pixels per mm of a whole slice, and the page position of the voxel `START`."""
    across, down, _ = AXES[name]
    box = plane(tab, name).locator("canvas").bounding_box()
    size, step = (np.array([values[across], values[down]]) for values in (SHAPE, SPACING))
    scale = min(np.array([box["width"], box["height"]]) / (size * step))
    line = START[down] if name == "axial" else SHAPE[down] - 1 - START[down]
    corner = np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]) - scale * size * step / 2
    return scale, corner + scale * step * (np.array([START[across], line]) + 0.5)


def turn(tab, name: str, angles: tuple[int, int]) -> None:
    """By keys: counter-clockwise with the left and the up arrow."""
    canvas = plane(tab, name).locator("canvas")
    tab.get_by_label("Oblique", exact=True).select_option(f"Turn {name}")
    for angle, (plus, minus) in zip(angles, (("Left", "Right"), ("Up", "Down")), strict=True):
        for _ in range(abs(angle)):
            canvas.press(f"Shift+Arrow{plus if angle > 0 else minus}")


def borders(tab, name: str) -> list[str]:
    return [plane(tab, name).locator(f".letter.{side}").inner_text() for side in ("left", "right", "top", "bottom")]


def shown(tab, name: str, place: Turned) -> tuple[np.ndarray, np.ndarray]:
    """What a canvas shows of a turned plane, and what scipy expects there, away from the border and the metal."""
    scale, (x0, y0) = layout(tab, name)
    box, drawn = plane(tab, name).locator("canvas").bounding_box(), greys(tab, name)
    y, x = np.indices(drawn.shape) + 0.5
    lps = GRID.to_lps(START)[:, None, None] + place.right[:, None, None] * (x + box["x"] - x0) / scale
    lps = lps + place.down[:, None, None] * (y + box["y"] - y0) / scale
    index = np.moveaxis(GRID.to_index(np.moveaxis(lps, 0, -1)), -1, 0)
    inner = np.all([np.minimum(i, n - 1 - i) * step > 3 for i, n, step in zip(index, SHAPE, SPACING, strict=True)], axis=0)
    inner &= np.linalg.norm(lps - GRID.to_lps(MARKER)[:, None, None], axis=0) > 9
    hu = map_coordinates(waves().astype(float), index[:, inner], order=1)
    return drawn[inner], np.clip((hu + 160) / 400 * 255, 0, 255)


@pytest.mark.parametrize(("name", "angles"), [("axial", (20, 0)), ("coronal", (-15, 25)), ("sagittal", (0, -30))])
def test_the_page_shows_the_turned_plane(tab, name: str, angles: tuple[int, int]) -> None:
    tab.get_by_label("Evidence", exact=True).uncheck()
    plane(tab, name).locator("canvas").press("c")
    settles(lambda: tab.get_by_role("button", name="Cursor").get_attribute("aria-pressed") == "false")
    picture, place = "(canvas) => canvas.toDataURL()", turned(GRID.affine_lps, name, angles)
    straight = plane(tab, name).locator("canvas").evaluate(picture)
    turn(tab, name, angles)
    others = {"axial": ("coronal", "sagittal"), "coronal": ("axial", "sagittal"), "sagittal": ("axial", "coronal")}[name]
    told = [f"{angle}° in {other}".replace("-", "\u2212") for angle, other in zip(angles, others, strict=True) if angle]
    title = "\n".join([f"{name.capitalize()}, turned", *told])
    settles(lambda: plane(tab, name).locator(".title").inner_text() == title)
    assert borders(tab, name) == [letters(v) for v in (-place.right, place.right, -place.down, place.down)]
    drawn, expected = shown(tab, name, place)
    assert len(drawn) > 10_000
    wrong = np.abs(drawn - expected)
    assert wrong.max() < 4 and wrong.mean() < 0.6
    plane(tab, name).locator("canvas").press("0")
    settles(lambda: plane(tab, name).locator("canvas").evaluate(picture) == straight)


def where(tab, name: str, place: Turned, lps: np.ndarray) -> tuple[float, float]:
    """Page position of a point of a turned plane whose cursor was at `START` when it was turned."""
    scale, corner = layout(tab, name)
    away = lps - GRID.to_lps(START)
    x, y = corner + scale * np.array([away @ place.right, away @ place.down])
    return float(x), float(y)


def drag(tab, start: tuple[float, float], stop: tuple[float, float]) -> None:
    tab.mouse.move(*start)
    tab.mouse.down()
    tab.mouse.move(*stop, steps=3)
    tab.mouse.up()


def measured(tab) -> list[float]:
    return [float(number) for number in re.findall(r"([\d.]+) mm", tab.locator(".status").inner_text().split("measured here")[1])]


def test_a_distance_in_a_turned_plane_is_millimetres_in_the_patient(tab) -> None:
    turn(tab, "axial", (20, -10))
    place = turned(GRID.affine_lps, "axial", (20, -10))
    a, b = (GRID.to_lps(START) + x * place.right + y * place.down for x, y in ((-9.0, -14.0), (11.0, 8.0)))
    tab.get_by_role("button", name="Measure").click()
    drag(tab, where(tab, "axial", place, a), where(tab, "axial", place, b))
    settles(lambda: measured(tab) == [pytest.approx(np.linalg.norm(b - a), abs=0.3)])  # a screen pixel is 0.1 mm here
    wheel(tab, "axial", 2)
    settles(lambda: "measured" not in tab.locator(".status").inner_text())
    wheel(tab, "axial", -2)
    settles(lambda: len(measured(tab)) == 1)  # back on the plane it was drawn on
    plane(tab, "axial").locator("canvas").press("0")
    settles(lambda: "measured" not in tab.locator(".status").inner_text())
    tab.get_by_role("button", name="Delete line").click()
    tab.get_by_role("button", name="Measure").click()


def test_the_cursor_is_linked_through_a_turned_plane(tab) -> None:
    turn(tab, "axial", (0, 25))
    place = turned(GRID.affine_lps, "axial", (0, 25))
    aim = GRID.to_lps(START) + 10 * place.right - 9 * place.down
    tab.mouse.click(*where(tab, "axial", place, aim))
    settles(lambda: at(tab, GRID.to_index(aim), 0.3))
    slices = [re.search(r"\d+", plane(tab, name).locator(".title").inner_text())[0] for name in ("coronal", "sagittal")]
    assert [int(number) for number in slices] == [round(k) + 1 for k in GRID.to_index(aim)[1:]]
    wheel(tab, "axial", 1)  # towards the feet along its own normal, by about a voxel
    step = 1 / np.linalg.norm(np.linalg.inv(GRID.affine_lps)[:3, :3] @ place.normal)
    settles(lambda: at(tab, GRID.to_index(aim - step * place.normal * np.sign(place.normal[2])), 0.3))
    _, corner = layout(tab, "coronal")
    tab.mouse.click(*corner)  # a voxel of another plane: the turned one goes through it
    settles(lambda: at(tab, (START[0], round(GRID.to_index(aim - step * place.normal)[1]), START[2]), 1.5))
    assert plane(tab, "axial").locator(".title").inner_text() == "Axial, turned\n25° in sagittal"


def test_a_handle_turns_the_plane_to_where_it_is_drawn(tab) -> None:
    title = plane(tab, "coronal").locator(".title")
    plane(tab, "coronal").locator("canvas").press("o")
    sync_api.expect(title).to_contain_text("drag a handle")
    _, corner = layout(tab, "axial")
    box = plane(tab, "axial").locator("canvas").bounding_box()
    reach = 0.3 * min(box["width"], box["height"])
    angle = np.radians(30)
    drag(tab, (corner[0] + reach, corner[1]), (corner[0] + reach * np.cos(angle), corner[1] - reach * np.sin(angle)))
    settles(
        lambda: title.inner_text() == "Coronal, turned\n30° in axial"
    )  # counter-clockwise, to the front on the patient's left
    assert borders(tab, "coronal")[1].startswith("LA")
    tab.get_by_label("Slab", exact=True).select_option("MIP 10 mm")
    settles(lambda: "no slab while turned" in title.inner_text())
    tab.get_by_role("button", name="Straighten").click()
    settles(lambda: title.inner_text().startswith("Coronal 21 / 44"))
    sync_api.expect(tab.get_by_role("button", name="Straighten")).to_be_hidden()
    plane(tab, "coronal").locator("canvas").press("r")
    sync_api.expect(tab.get_by_label("Oblique", exact=True)).to_have_value("")
    plane(tab, "coronal").locator("canvas").press("?")
    sync_api.expect(tab.get_by_text("turn the oblique plane by one degree")).to_be_visible()
    plane(tab, "coronal").locator("canvas").press("Escape")


def test_metal_and_evidence_of_the_right_side_stay_on_the_left(tab) -> None:
    tab.get_by_role("button", name="Bone").click()
    for name in ("axial", "coronal"):
        if name == "coronal":
            scale, corner = layout(tab, "axial")
            step = scale * np.array([SPACING[2], SPACING[1]])
            tab.mouse.click(*(corner + step * (np.array(MARKER[:0:-1]) - START[:0:-1])))  # the coronal plane through the metal
            settles(lambda: at(tab, MARKER))
        canvas = plane(tab, name).locator("canvas")
        turn(tab, name, (-6, 5))
        settles(lambda shown=canvas: shown.evaluate(COLOURED) < 0.5)
        tab.get_by_label("Evidence", exact=True).uncheck()
        settles(lambda shown=canvas: shown.evaluate(BRIGHT, 253)[0] < 0.5)
        tab.get_by_label("Evidence", exact=True).check()
        tab.get_by_label("Oblique", exact=True).select_option("Straight planes")
