"""The page in a real headless Chromium, on results made by code."""

import pytest
from browser_page import BRIGHT, COLOURED, READY, mm, opened, plane, position, settles, wheel
from results_folder import DONE, MARKER_DHW, SECOND_DHW, grid

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


def test_the_patients_right_is_on_the_screens_left(tab, url: str) -> None:
    opened(tab, url)
    assert grid().to_lps(MARKER_DHW)[0] < grid().center_lps[0]  # LPS: smaller x is further right
    tab.get_by_role("button", name="Bone").click()
    tab.get_by_label("Evidence", exact=True).uncheck()
    tab.wait_for_timeout(300)
    x, y = plane(tab, "axial").locator("canvas").evaluate(BRIGHT, 180)
    assert x < 0.45
    assert y < 0.5  # the marker lies in front of the middle, and the front is up
    x, y = plane(tab, "coronal").locator("canvas").evaluate(BRIGHT, 180)
    assert x < 0.5
    assert y < 0.4  # head up
    for name, letters in {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}.items():
        assert "".join(plane(tab, name).locator(".letter").all_inner_texts()) == letters


def test_opens_at_the_top_findings_peak_with_its_evidence(tab, url: str) -> None:
    opened(tab, url)
    x, y, z = grid().to_lps(MARKER_DHW)
    settles(lambda: position(tab, "axial") == mm(z, "S", "I"))
    settles(lambda: position(tab, "coronal") == mm(y, "P", "A"))
    settles(lambda: position(tab, "sagittal") == mm(x, "L", "R"))
    settles(lambda: "1000 HU" in tab.locator(".status").inner_text())
    settles(lambda: plane(tab, "axial").locator("canvas").evaluate(COLOURED) < 0.4)


def test_the_wheel_scrolls_without_the_server(tab, url: str) -> None:
    opened(tab, url)
    asked = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("websocket", lambda socket: asked.append(socket.url))
    before = grid().to_lps(MARKER_DHW)
    wheel(tab, "axial", 5)
    settles(lambda: position(tab, "axial") == mm(before[2] - 15.0, "S", "I"))  # five slices of 3 mm towards the feet
    wheel(tab, "sagittal", -4)
    settles(lambda: position(tab, "sagittal") == mm(before[0] - 4.4, "L", "R"))
    wheel(tab, "axial", 100)
    settles(lambda: plane(tab, "axial").locator(".title").inner_text() == "Axial 1 / 40")
    assert asked == []


def test_the_window_changes_by_button_key_and_drag(tab, url: str) -> None:
    opened(tab, url)
    canvas, shown = plane(tab, "axial").locator("canvas"), tab.locator(".window")
    grey = "c => c.getContext('2d').getImageData(c.width / 2 + 30, c.height * 0.7, 1, 1).data[0]"
    sync_api.expect(shown).to_have_text("W 400 L 40", timeout=10_000)
    soft = canvas.evaluate(grey)
    tab.get_by_role("button", name="Lung").click()
    tab.wait_for_timeout(200)
    sync_api.expect(shown).to_have_text("W 1500 L -600", timeout=10_000)
    assert canvas.evaluate(grey) > soft
    canvas.press("4")
    sync_api.expect(shown).to_have_text("W 1800 L 400", timeout=10_000)
    box = canvas.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(*middle)
    tab.mouse.down(button="right")
    tab.mouse.move(middle[0] + 50, middle[1] - 30)
    tab.mouse.up(button="right")
    sync_api.expect(shown).to_have_text("W 1900 L 340", timeout=10_000)
    settles(lambda: position(tab, "axial") == mm(grid().to_lps(MARKER_DHW)[2], "S", "I"))


def test_a_click_in_one_plane_moves_the_others(tab, url: str) -> None:
    opened(tab, url)
    before = position(tab, "axial"), position(tab, "coronal"), position(tab, "sagittal")
    canvas = plane(tab, "coronal").locator("canvas")
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] / 2 + 20, "y": box["height"] * 0.75})
    tab.wait_for_timeout(200)
    after = position(tab, "axial"), position(tab, "coronal"), position(tab, "sagittal")
    assert after[0] != before[0]
    assert after[1] == before[1]
    assert after[2] != before[2]


def test_a_finding_brings_its_evidence_and_its_place(tab, url: str) -> None:
    opened(tab, url)
    wheel(tab, "axial", 3)
    tab.get_by_role("button", name="Stone").click()
    x, y, z = grid().to_lps(SECOND_DHW)
    sync_api.expect(plane(tab, "axial").locator(".position")).to_have_text(mm(z, "S", "I"))
    settles(lambda: position(tab, "coronal") == mm(y, "P", "A"))
    settles(lambda: position(tab, "sagittal") == mm(x, "L", "R"))
    tab.wait_for_selector(READY)
    tab.wait_for_timeout(300)
    settles(lambda: plane(tab, "axial").locator("canvas").evaluate(COLOURED) > 0.6)
    sync_api.expect(tab.get_by_text("There is a stone.")).to_be_visible()
    wheel(tab, "axial", 3)
    tab.get_by_role("button", name="Stone").click()  # a second click leads there again
    sync_api.expect(plane(tab, "axial").locator(".position")).to_have_text(mm(z, "S", "I"))


def test_magnified_planes_keep_their_place_and_fit_again(tab, url: str) -> None:
    opened(tab, url)
    plane(tab, "axial").hover()
    tab.keyboard.down("Control")
    tab.mouse.wheel(0, -600)
    tab.keyboard.up("Control")
    fit = tab.get_by_role("button", name="Fit")
    fit.wait_for()
    tab.get_by_role("button", name="Stone").click()
    sync_api.expect(plane(tab, "axial").locator(".position")).to_have_text(mm(grid().to_lps(SECOND_DHW)[2], "S", "I"))
    fit.click()
    fit.wait_for(state="hidden")


def test_texts_from_files_do_not_run(tab, url: str) -> None:
    opened(tab, url)
    tab.get_by_role("button", name="c0hostile").click()
    sync_api.expect(tab.get_by_text("outside its study folder")).to_be_visible()
    tab.wait_for_timeout(500)
    assert tab.title() != "owned"
    assert tab.locator("img[src='x']").count() == 0
    sync_api.expect(tab.get_by_label("Evidence", exact=True)).to_be_hidden()  # there is no map to show
    settles(lambda: "<script>" in tab.get_by_test_id("stMain").inner_text())


def test_each_study_keeps_its_own_images(tab, url: str) -> None:
    opened(tab, url)
    tab.get_by_role("button", name="b0skipped").click()
    sync_api.expect(tab.get_by_text("This study was skipped")).to_be_visible()
    assert tab.locator(".plane").count() == 0
    tab.get_by_role("button", name=DONE).click()
    tab.wait_for_selector(READY)
    settles(lambda: "1000 HU" in tab.locator(".status").inner_text())


def test_an_expired_link_is_renewed_once(browser, url: str) -> None:
    refused, tab = [], browser.new_page()

    def refuse_once(route: "sync_api.Route") -> None:
        if refused:
            route.continue_()
        else:
            refused.append(route.request.url)
            route.fulfill(status=403, body="This link has expired.")

    tab.route("**/medvl/picture/*", refuse_once)
    tab.goto(url)
    tab.wait_for_selector(READY, timeout=60_000)
    assert len(refused) == 1
    tab.close()


def test_without_the_script_plain_images_are_shown(browser, url: str) -> None:
    tab = browser.new_page()
    tab.route("**/medvl/script/**", lambda route: route.abort())
    tab.goto(url)
    sync_api.expect(tab.get_by_text("Plain images, without evidence maps")).to_be_visible(timeout=60_000)
    sync_api.expect(tab.locator("img").first).to_be_visible()
    tab.close()
