"""What a reader does with the images, in a real headless Chromium: distances, slabs, inversion, reset, two studies linked."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser_page import COLOURED, mm, opened, plane, serving, settles, wheel
from results_folder import MARKER_DHW, finding, grid, heatmap_of, image_hu, save_nifti, study_json

from medvl.geometry import Geometry

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
LEVEL = "([canvas, x, y]) => canvas.getContext('2d').getImageData(canvas.width * x, canvas.height * y, 1, 1).data[0]"


def pixel_of(tab, name: str, index_dhw: tuple[float, float, float]) -> tuple[float, float]:
    """Page position of a voxel's middle, from the shape and spacing of the grid alone."""
    normal, row, column, up = {"axial": (0, 1, 2, False), "coronal": (1, 0, 2, True), "sagittal": (2, 0, 1, True)}[name]
    del normal
    shape, spacing, box = grid().shape_dhw, grid().spacing_mm, plane(tab, name).locator("canvas").bounding_box()
    wide, high = shape[column] * spacing[column], shape[row] * spacing[row]
    scale = min(box["width"] / wide, box["height"] / high)
    line = shape[row] - 1 - index_dhw[row] if up else index_dhw[row]
    left, top = box["x"] + (box["width"] - wide * scale) / 2, box["y"] + (box["height"] - high * scale) / 2
    return left + (index_dhw[column] + 0.5) * spacing[column] * scale, top + (line + 0.5) * spacing[row] * scale


def drag(tab, start: tuple[float, float], stop: tuple[float, float]) -> None:
    tab.mouse.move(*start)
    tab.mouse.down()
    tab.mouse.move(*stop, steps=3)
    tab.mouse.up()
    tab.wait_for_timeout(100)


def measured(tab) -> list[float]:
    text = tab.locator(".status").inner_text()
    return [float(part.removesuffix(" mm")) for part in text.split("measured here ")[1].split(" · ")[0].strip().split(", ")]


def test_a_distance_is_millimetres_in_the_patient(tab, url: str) -> None:
    opened(tab, url)
    plane(tab, "axial").hover()
    tab.keyboard.press("m")
    a, b = (MARKER_DHW[0], 12, 10), (MARKER_DHW[0], 40, 38)
    drag(tab, pixel_of(tab, "axial", a), pixel_of(tab, "axial", b))
    expected = np.linalg.norm(grid().to_lps(a) - grid().to_lps(b))
    settles(lambda: measured(tab) == [pytest.approx(expected, abs=0.4)])  # one screen pixel is 0.2 mm here
    c, d = (10, MARKER_DHW[1], 30), (35, MARKER_DHW[1], 30)
    drag(tab, pixel_of(tab, "coronal", c), pixel_of(tab, "coronal", d))
    assert measured(tab)[1] == pytest.approx(75.0, abs=0.7)
    longer = (MARKER_DHW[0], 40, 24)
    drag(tab, pixel_of(tab, "axial", b), pixel_of(tab, "axial", longer))  # an end is taken and put elsewhere
    assert measured(tab)[0] == pytest.approx(np.linalg.norm(grid().to_lps(a) - grid().to_lps(longer)), abs=0.4)


def test_lines_stay_on_their_slice_until_deleted(tab, url: str) -> None:
    opened(tab, url)
    tab.get_by_role("button", name="Measure").click()
    z = MARKER_DHW[0]
    drag(tab, pixel_of(tab, "axial", (z, 12, 10)), pixel_of(tab, "axial", (z, 12, 30)))
    drag(tab, pixel_of(tab, "axial", (z, 45, 10)), pixel_of(tab, "axial", (z, 45, 20)))
    settles(lambda: measured(tab) == pytest.approx([22.0, 11.0], abs=0.4))
    wheel(tab, "axial", 2)
    settles(lambda: "measured" not in tab.locator(".status").inner_text())
    wheel(tab, "axial", -2)
    assert len(measured(tab)) == 2
    tab.get_by_role("button", name="c0hostile").click()  # another study and back
    sync_api.expect(tab.get_by_text("outside its study folder")).to_be_visible()
    tab.get_by_role("button", name="a1b2c3d4e5f6").click()
    sync_api.expect(tab.locator(".status")).to_contain_text("measured here 2", timeout=20_000)
    plane(tab, "axial").locator("canvas").press("Delete")
    tab.wait_for_timeout(100)
    settles(lambda: measured(tab) == pytest.approx([22.0], abs=0.4))
    tab.get_by_role("button", name="Delete line").click()
    sync_api.expect(tab.get_by_role("button", name="Delete line")).to_be_hidden()


def test_a_slab_shows_the_brightest_and_says_its_true_thickness(tab, url: str) -> None:
    opened(tab, url)
    canvas, title = plane(tab, "axial").locator("canvas"), plane(tab, "axial").locator(".title")
    tab.get_by_label("Evidence", exact=True).uncheck()
    wheel(tab, "axial", 4)  # the marker is two slices thick on each side: out of sight
    box = canvas.bounding_box()
    x, y = pixel_of(tab, "axial", (0, MARKER_DHW[1] + 2, MARKER_DHW[2] + 2))  # off the cursor's lines
    here = [(x - box["x"]) / box["width"], (y - box["y"]) / box["height"]]

    def level() -> int:
        tab.wait_for_timeout(150)
        return tab.evaluate(LEVEL, [canvas.element_handle(), *here])

    single = level()
    tab.get_by_label("Slab", exact=True).select_option("MIP 10 mm")
    settles(lambda: title.inner_text().endswith("MIP 9.0 mm"))  # three slices of 3 mm
    assert level() == single  # one slice is still missing
    tab.get_by_label("Slab", exact=True).select_option("MIP 20 mm")
    settles(lambda: title.inner_text().endswith("MIP 21.0 mm"))
    settles(lambda: level() > 250)
    tab.get_by_label("Slab", exact=True).select_option("Average 10 mm")
    assert level() == pytest.approx(single, abs=2)
    tab.get_by_label("Slab", exact=True).select_option("MinIP 10 mm")
    assert level() <= single
    plane(tab, "axial").hover()
    tab.keyboard.press("r")
    sync_api.expect(tab.get_by_label("Slab", exact=True)).to_have_value("0")


def test_average_and_minimum_are_those_of_numpy(tab, url: str) -> None:
    opened(tab, url)
    z, y, x = MARKER_DHW
    module = tab.evaluate(
        """async ([shape, values, at]) => {
          const entry = performance.getEntriesByType("resource").find((e) => e.name.includes("slab.js")).name;
          const { cut, span } = await import(entry);
          const volume = { shape, sliceLength: shape[1] * shape[2], hu: Int16Array.from(values) };
          const planes = [{ normal: 0, row: 1, column: 2, up: false }, { normal: 1, row: 0, column: 2, up: true },
            { normal: 2, row: 0, column: 1, up: true }];
          return planes.flatMap((plane) => ["max", "min", "mean"].map((mode) => {
            const out = new Int16Array(shape[plane.row] * shape[plane.column]);
            cut(volume, plane, span(at[plane.normal], shape[plane.normal], 1, 3), mode, out);
            return Array.from(out);
          }));
        }""",
        [[40, 56, 48], image_hu().ravel().tolist(), [z, y, x]],
    )
    expected = []
    for normal, at in enumerate((z, y, x)):
        part = np.take(image_hu(), [at - 1, at, at + 1], axis=normal).astype(float)
        for joined in (part.max(normal), part.min(normal), np.floor(part.mean(normal) + 0.5)):
            expected.append((joined[::-1] if normal else joined).ravel().tolist())
    assert module == expected


def test_inversion_cursor_and_reset(tab, url: str) -> None:
    opened(tab, url)
    canvas = plane(tab, "axial").locator("canvas")
    corner = [canvas.element_handle(), 0.5, 0.75]
    before = tab.evaluate(LEVEL, corner)
    canvas.press("i")
    tab.wait_for_timeout(150)
    assert abs(tab.evaluate(LEVEL, corner) - (255 - before)) <= 1
    lines = """(canvas) => {
      const { width, height } = canvas, data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
      let n = 0;
      for (let i = 0; i < data.length; i += 4) if (data[i + 2] - data[i] > 60) n += 1;
      return n;
    }"""
    assert canvas.evaluate(lines) > 300
    canvas.press("c")
    tab.wait_for_timeout(150)
    assert canvas.evaluate(lines) < 50
    canvas.press("t")
    canvas.press("Shift+T")  # no key of the images
    sync_api.expect(tab.get_by_label("Slab", exact=True)).to_have_value("1")
    canvas.press("3")
    canvas.press("r")
    sync_api.expect(tab.locator(".window")).to_have_text("W 400 L 40", timeout=10_000)
    tab.wait_for_timeout(150)
    settles(lambda: tab.evaluate(LEVEL, corner) == before)
    canvas.press("?")
    sync_api.expect(tab.get_by_text("black and white")).to_be_visible()
    canvas.press("Escape")
    sync_api.expect(tab.get_by_text("black and white")).to_be_hidden()


OTHER = Geometry.centered((-30.0, 44.0, -800.0), (31, 40, 44), (5.0, 1.5, 1.4))  # another patient, thicker slices
OTHER_PEAK = (20, 18, 30)


@pytest.fixture(scope="module")
def pair(browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page with two phantoms beside each other."""
    folder = tmp_path_factory.mktemp("pair")
    for case, geometry, hu, peak in (
        ("a1", grid(), image_hu(), MARKER_DHW),
        ("b2", OTHER, np.full(OTHER.shape_dhw, 30), OTHER_PEAK),
    ):
        study = folder / "results" / "studies" / case
        lps = geometry.to_lps(peak).tolist()
        entry = finding("mass", "kidney_right", 0.9, "present", **(heatmap_of(study, "mass", peak) | {"peak_lps": lps}))
        save_nifti(study / "image.nii.gz", hu.astype(np.int16), geometry)
        (study / "findings.json").write_text(json.dumps(study_json(case, findings=[entry])))
    with serving(folder / "results", folder / "server.log", server=Path(__file__).with_name("pair_server.py")) as address:
        yield address


def test_two_studies_scroll_together_in_millimetres(tab, pair: str) -> None:
    tab.goto(pair)
    sync_api.expect(tab.locator('.pane[data-ready="true"]')).to_have_count(2, timeout=30_000)
    left, right = (tab.locator(".pane").nth(k) for k in (0, 1))

    def slices() -> list[str]:
        tab.wait_for_timeout(200)
        return [pane.locator(".axial .position").inner_text() for pane in (left, right)]

    z, other = grid().to_lps(MARKER_DHW)[2], OTHER.to_lps(OTHER_PEAK)[2]
    settles(lambda: slices() == [mm(z, "S", "I"), mm(other, "S", "I")])
    settles(lambda: left.locator(".axial canvas").evaluate(COLOURED) is not None)
    left.locator(".axial").hover()
    for _ in range(5):
        tab.mouse.wheel(0, 120)
    settles(lambda: slices() == [mm(z - 15, "S", "I"), mm(other - 15, "S", "I")])  # five slices of 3 mm are three of 5 mm
    right.locator(".axial").hover()
    tab.mouse.wheel(0, -120)
    settles(lambda: slices() == [mm(z - 9, "S", "I"), mm(other - 10, "S", "I")])  # the nearest slice: 10 mm back is 3.3 slices
    left.get_by_role("button", name="Lung").click()
    sync_api.expect(right.locator(".window")).to_have_text("W 1500 L -600", timeout=10_000)
    settles(lambda: "<b>" in left.locator(".heading").inner_text())  # a title is text


def test_unlinked_studies_can_be_lined_up_by_hand(tab, pair: str) -> None:
    tab.goto(pair)
    sync_api.expect(tab.locator('.pane[data-ready="true"]')).to_have_count(2, timeout=30_000)
    left, right = (tab.locator(".pane").nth(k) for k in (0, 1))

    def scrolls(pane, notches: int, *positions: str) -> None:
        pane.locator(".axial").hover()
        for _ in range(abs(notches)):
            tab.mouse.wheel(0, 120 if notches > 0 else -120)
        for each, told in zip((left, right), positions, strict=True):
            sync_api.expect(each.locator(".axial .position")).to_have_text(told)

    z, other = grid().to_lps(MARKER_DHW)[2], OTHER.to_lps(OTHER_PEAK)[2]
    left.get_by_role("button", name="Linked").click()
    sync_api.expect(right.get_by_role("button", name="Linked")).to_have_attribute("aria-pressed", "false")
    scrolls(right, 2, mm(z, "S", "I"), mm(other - 10, "S", "I"))
    right.get_by_role("button", name="Linked").click()
    scrolls(left, 5, mm(z - 15, "S", "I"), mm(other - 25, "S", "I"))
    left.locator(".axial canvas").dblclick()
    settles(lambda: right.locator(".coronal canvas").is_visible())
