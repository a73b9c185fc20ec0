"""In a real browser: nothing that a file or a user wrote runs or becomes an element, and two users at once do not mix."""

from collections.abc import Iterator

import numpy as np
import pytest
from browser_page import READY, serving, settles, watched
from results_folder import DONE, finding, study_json, write_results, write_study
from safetensors.numpy import save_file

from medvl.review.desk import Reviews
from medvl.review.record import Choice, Decision, Person
from medvl_ui.accounts import Role, put
from medvl_ui.launch import Door

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
PASSWORD = "correct horse battery"
CASE = "a0hostile"
EVIL = "http://evil.example"
HOSTILE = (
    "<script>window.owned=1</script><img src=x onerror=window.owned=1><b id=made>b</b>[go](javascript:window.owned=1) "
    f"![pic]({EVIL}/p.png) [l]({EVIL}) {EVIL}/auto www.evil.example me@evil.example $x^2$ $$y$$ :smile: :red[colour] "
    ":material/home: :blue-badge[b] **bold** `code` # head &lt;i&gt; <details open ontoggle=window.owned=1>"
)
# Everything that markup, Markdown, LaTeX, emoji codes or colour directives could have made of it.
MADE = (
    "#made, img[src='x'], img[src*='evil'], a[href^='http'][href*='evil'], a[href^='javascript'], a[href^='mailto'], .katex, "
    "details[ontoggle], strong:text-is('bold'), code:text-is('code'), span:text-is('home')"
)
USER = f"<b id=made>b</b> [l]({EVIL}) :red[c] **bold** $x$"
TABS = ("Finding", "Similar", "Prognosis", "Draft", "Prompts", "Study", "Sign-off", "Review")


def hostile_study() -> dict:
    reason = [{"code": HOSTILE, "message": HOSTILE}]
    asked = finding(
        HOSTILE, HOSTILE, 0.7, "present", label=HOSTILE, reasons=reason, prompts={"present": [HOSTILE], "absent": [HOSTILE]}
    )
    study = study_json(CASE, findings=[asked], reasons=reason, software=HOSTILE, research_use=HOSTILE)
    study["bundle"]["name"] = HOSTILE
    study["series"] |= {"modality": HOSTILE, "why": HOSTILE, "key": HOSTILE, "verdict": HOSTILE, "reasons": reason}
    told = ("manufacturer", "model", "kernel", "kvp", "slice_thickness_mm", "contrast")
    study["series"]["facts"] = dict.fromkeys(told, HOSTILE)
    region = study["regions"][0] | {"name": HOSTILE, "source": HOSTILE, "reasons": reason}
    risk = {"endpoint": HOSTILE, "value": 1.4, "percentile": 71, "reasons": reason}
    return study | {"regions": [region], "risk": risk}


@pytest.fixture(scope="module")
def hostile_url(browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("hostile")
    results = folder / "results"
    write_study(results, hostile_study(), image=True)
    study = hostile_study()
    write_study(results, study | {"case_id": "c0like"})
    for case, vector in ((CASE, [1.0, 0.0]), ("c0like", [0.6, 0.8])):
        meta = {"model_sha256": study["bundle"]["sha256"], "contract_hash": study["bundle"]["contract"]}
        both = {name: np.array(vector, np.float32) for name in (HOSTILE, "kidney_left")}
        save_file(both, results / "studies" / case / "embeddings.safetensors", metadata=meta)
    write_study(results, study_json("b1skipped", status="skipped", reasons=[{"code": "x", "message": HOSTILE}]))
    with Reviews(results) as kept:
        who = Person(HOSTILE[:200], "reviewer")
        read = kept.review(CASE).answers
        decision = Decision(read.items[0].name, Choice.accept, comment=HOSTILE)
        kept.save(CASE, decision, who, expected_version=0, results=read.sha256)
        added = Decision("added:1", Choice.added, label=HOSTILE[:200], comment=HOSTILE)
        kept.save(CASE, added, who, expected_version=0, results=read.sha256)
        kept.save_text(CASE, HOSTILE, who, proposed=HOSTILE, expected_version=0, results=read.sha256)
    with serving(results, folder / "server.log", door=Door(user=USER)) as address:
        yield address


def harmless(tab: "sync_api.Page") -> None:
    tab.wait_for_timeout(300)
    assert tab.evaluate("window.owned") is None
    assert tab.locator(MADE).count() == 0, tab.locator(MADE).first.evaluate("e => e.outerHTML")


@pytest.mark.slow
def test_what_files_and_users_wrote_is_shown_and_does_nothing(tab, hostile_url: str) -> None:
    tab.goto(hostile_url)
    tab.wait_for_selector(READY)
    harmless(tab)
    for name in TABS:
        pane = tab.get_by_role("tab", name=name, exact=True)
        if pane.count():
            pane.click()
            harmless(tab)
    tab.get_by_role("tab", name="Similar").click()
    sync_api.expect(tab.get_by_text("Whole case").first).to_be_visible(timeout=20_000)
    harmless(tab)
    tab.get_by_role("tab", name="Draft").click()
    sync_api.expect(tab.get_by_role("textbox", name="Report text")).to_have_value(HOSTILE)
    harmless(tab)
    said = " ".join(tab.locator("body").inner_text().replace("\u2060", "").split())
    assert said.count(" ".join(HOSTILE.split())) >= 2  # letter by letter
    assert f"Local mode, no sign-in: {USER}, reviewer" in said
    tab.get_by_role("button", name="b1skipped").click()
    sync_api.expect(tab.get_by_text("This study was skipped")).to_be_visible()
    harmless(tab)
    tab.get_by_role("button", name="Table").click()
    sync_api.expect(tab.get_by_text("Click the box before a row")).to_be_visible()
    harmless(tab)


@pytest.fixture(scope="module")
def shared_url(browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("shared")
    users = folder / "users.yaml"
    put(users, "ada", Role.reviewer, PASSWORD)
    put(users, "root", Role.admin, PASSWORD)
    with serving(write_results(folder / "results"), folder / "server.log", door=Door(mode="users", users=users)) as address:
        yield address


def signed_in(tab: "sync_api.Page", url: str, name: str) -> None:
    tab.goto(url)
    tab.get_by_label("Name").fill(name)
    tab.get_by_label("Password").fill(PASSWORD)
    tab.get_by_role("button", name="Sign in").click()
    tab.wait_for_selector(READY)


@pytest.mark.slow
def test_two_users_at_once_do_not_mix(browser, shared_url: str) -> None:
    with watched(browser) as first, watched(browser) as second:  # each with cookies of its own
        signed_in(first, shared_url, "ada")
        signed_in(second, shared_url, "root")
        first.get_by_role("button", name="b0skipped").click()
        sync_api.expect(first.get_by_text("This study was skipped")).to_be_visible()
        assert second.get_by_text("This study was skipped").count() == 0
        sync_api.expect(second.get_by_role("heading", name=DONE)).to_be_visible()
        for tab, name, other in ((first, "ada, reviewer", "root"), (second, "root, admin", "ada, reviewer")):
            tab.get_by_role("button", name=name).click()
            assert tab.get_by_text(other).count() == 0
        assert first.get_by_role("button", name="Administration").count() == 0
        second.get_by_role("button", name="Administration").click()
        sync_api.expect(second.get_by_text("Signed in now")).to_be_visible()
        first.get_by_role("button", name="Sign out").click()
        first.wait_for_url("**/medvl/sign-in?ended")
        second.reload()  # the other's session is whole, and outlives a reload
        second.wait_for_selector(READY)


def test_keys_go_through_the_worklist(tab, shared_url: str) -> None:
    signed_in(tab, shared_url, "ada")
    tab.keyboard.press("n")
    sync_api.expect(tab.get_by_role("heading", name="c0hostile")).to_be_visible()
    tab.keyboard.press("p")
    sync_api.expect(tab.get_by_role("heading", name=DONE)).to_be_visible()
    box = tab.get_by_label("Search")
    box.click()
    tab.keyboard.type("nnp")  # typing is not steering
    settles(lambda: box.input_value() == "nnp")
    sync_api.expect(tab.get_by_role("heading", name=DONE)).to_be_visible()
    assert "?" not in tab.url
    assert DONE not in tab.url
