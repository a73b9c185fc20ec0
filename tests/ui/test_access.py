"""Who may come in: the gate before all pages, roles in the functions themselves, and doors that are refused."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from results_folder import DONE
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect
from streamlit.testing.v1 import AppTest

from medvl.errors import ConfigError
from medvl_ui import access, accounts, admin, reviews, sign_in, transport
from medvl_ui.access import Access, Mode, NotAllowedError, User, open_access
from medvl_ui.accounts import Accounts, Role, put, remove
from medvl_ui.gate import ACTIVE, SIGN_IN, Gate
from medvl_ui.launch import Door, command
from medvl_ui.sessions import Attempts, Sessions
from medvl_ui.station import open_station

PASSWORD = "correct horse battery"
PAGE = Path(__file__).with_name("access_page.py")


async def _page(request) -> PlainTextResponse:
    return PlainTextResponse("studies")


async def _socket(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


@pytest.fixture
def clock() -> list[float]:
    return [time.time()]


@pytest.fixture
def way(results: Path, clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Access]:
    """`users` mode with one user of each role."""
    monkeypatch.setattr(accounts, "_N", 2**4)
    users = tmp_path / "users.yaml"
    for role in Role:
        put(users, str(role), role, PASSWORD)
    open_station(results)
    sessions = Sessions(900, 12 * 3600, clock=lambda: clock[0])
    yield open_access(Access(Mode.users, "", Accounts(users), sessions, Attempts(), hosts=("testserver",)))
    open_access(Access())


@pytest.fixture
def client(way: Access) -> Iterator[TestClient]:
    routes = [Route("/", _page), Route("/static/x", _page), WebSocketRoute("/_stcore/stream", _socket), *transport.routes()]
    app = Starlette(routes=[*routes, *sign_in.routes()], middleware=[Middleware(Gate)])
    with TestClient(app, follow_redirects=False) as client:
        yield client


def signed(client: TestClient, name: str = "reviewer", password: str = PASSWORD):
    return client.post(SIGN_IN, data={"name": name, "password": password})


def test_nobody_reaches_anything_without_signing_in(client: TestClient) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, SIGN_IN)
    link = transport.picture_url(DONE, "image")
    for path in ("/static/x", link, "/_stcore/bidi-components/x", "/_stcore/upload_file/x", "/medvl/script/x/viewer.js"):
        assert client.get(path).status_code == 401
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/_stcore/stream"):
        pass
    assert client.get(ACTIVE).status_code == 401


def test_a_password_opens_page_socket_and_pictures(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = signed(client)
    cookie = answer.headers["set-cookie"].lower()
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert client.get("/").text == "studies"
    monkeypatch.setattr(access, "cookies", lambda: {access.COOKIE: client.cookies[access.COOKIE]})
    assert client.get(transport.picture_url(DONE, "image")).status_code == 200
    with client.websocket_connect("/_stcore/stream") as socket:
        socket.send_text("hello")
        assert socket.receive_text() == "hello"


@pytest.mark.parametrize("name", ["reviewer", "nobody", "", "<script>"])
def test_a_wrong_password_and_a_wrong_name_look_the_same(client: TestClient, name: str) -> None:
    answer = signed(client, name, "wrong wrong wrong")
    assert answer.status_code == 401
    assert "Name or password is wrong." in answer.text
    assert "set-cookie" not in answer.headers
    assert "<script" not in answer.text


def test_the_sixth_try_in_a_row_waits_even_with_the_right_password(client: TestClient) -> None:
    assert [signed(client, password="wrong").status_code for _ in range(5)] == [401] * 5
    answer = signed(client)
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 901
    assert signed(client, "reader").status_code == 303  # others are not kept out


def test_forms_of_other_sites_and_huge_ones_are_refused(client: TestClient) -> None:
    data = {"name": "reviewer", "password": PASSWORD}
    for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        assert client.post(SIGN_IN, data=data, headers=headers).status_code == 403
    assert client.post(SIGN_IN, data={**data, "more": "x" * 100_000}).status_code == 403


def test_other_names_of_the_server_are_refused(client: TestClient) -> None:
    for host in ("evil.example", "evil.example:8501", ""):
        assert client.get(SIGN_IN, headers={"host": host}).status_code == 421


def test_a_session_ends_when_nobody_is_at_work(client: TestClient, clock: list[float]) -> None:
    signed(client)
    clock[0] += 800
    assert client.get(ACTIVE).json() == {"seconds": 100}
    assert client.post(ACTIVE).json() == {"seconds": 900}
    with client.websocket_connect("/_stcore/stream") as socket:
        clock[0] += 901
        socket.send_text("hello")
        with pytest.raises(WebSocketDisconnect):
            socket.receive_text()
    assert client.get(ACTIVE).status_code == 401
    assert client.get("/").status_code == 303


@pytest.mark.parametrize("change", ["removed", "new password"])
def test_a_session_ends_with_its_account(client: TestClient, way: Access, change: str) -> None:
    signed(client)
    assert way.accounts is not None
    if change == "removed":
        remove(way.accounts.path, "reviewer")
    else:
        put(way.accounts.path, "reviewer", Role.reviewer, PASSWORD + " new")
    assert client.get("/").status_code == 303


def test_a_broken_users_file_closes_the_door(client: TestClient, way: Access) -> None:
    signed(client)
    assert way.accounts is not None
    way.accounts.path.chmod(0o644)
    assert client.get("/").status_code == 303
    assert signed(client).status_code == 503


def test_sign_ins_and_failures_are_in_the_audit_log_but_not_what_was_typed(client: TestClient, results: Path) -> None:
    signed(client, "reviewer", "wrong")
    signed(client, "my password typed as name", "x")
    signed(client)
    told = [(event["who"], event["what"]) for event in reviews.events(results)][1:]
    assert told == [("reviewer", "sign-in failed"), ("unknown", "sign-in failed"), ("reviewer", "signed in")]


def test_headers_keep_pages_from_being_framed_and_scripts_out(client: TestClient) -> None:
    for path in ("/", SIGN_IN, "/static/x"):
        headers = client.get(path).headers
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        script = next(part for part in headers["content-security-policy"].split("; ") if part.startswith("script-src"))
        assert "'unsafe-inline'" not in script
        assert "http" not in script


# Roles, in the page


def page(token: str | None, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setattr(access, "cookies", lambda: {access.COOKIE: token} if token else {})
    return AppTest.from_file(str(PAGE), default_timeout=60).run()


def begin(way: Access, name: str) -> str:
    assert way.accounts is not None
    account = way.accounts.get(name)
    assert account is not None
    return way.sessions.begin(name, access.proof(account))


@pytest.mark.parametrize("role", list(Role))
def test_roles_are_enforced_in_the_functions(way: Access, role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    at = page(begin(way, str(role)), monkeypatch)
    assert at.text[0].value == f"{role} {role}"
    assert [text.value for text in at.text[1:]] == [f"{r}: {role.covers(r)}" for r in Role]
    keys = [button.key for button in at.button]
    assert ("administration" in keys) == (role == Role.admin)
    at.session_state["administration_open"] = True  # the page's memory does not decide
    at.run()
    assert bool(at.tabs) == (role == Role.admin)
    assert not at.exception


def test_the_administration_is_refused_to_others_where_it_is_done(way: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "require", lambda role: (_ for _ in ()).throw(NotAllowedError("no")))
    for function in (admin.show, admin._verify):
        with pytest.raises(NotAllowedError):
            function()
    with pytest.raises(NotAllowedError, match="reviewer"):
        admin.export(User("ada", Role.reviewer))
    assert '"log exported"' in admin.export(User("root", Role.admin))


def test_signing_out_and_idling_empty_the_page(way: Access, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    token = begin(way, "reviewer")
    at = page(token, monkeypatch)
    at.button(key="sign_out").click().run()
    assert [e.value for e in at.subheader] == ["You are signed out"]
    assert not at.text
    assert way.sessions.find(token) is None
    at = page(begin(way, "reviewer"), monkeypatch)
    clock[0] += 901
    at.run()
    assert not at.text


def test_one_users_page_memory_is_not_the_next_ones(way: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    at = page(begin(way, "reviewer"), monkeypatch)
    at.session_state["comment"] = "a draft"
    at.run()
    assert "comment" in at.session_state
    other = begin(way, "reader")
    monkeypatch.setattr(access, "cookies", lambda: {access.COOKIE: other})
    at.run()
    assert at.text[0].value == "reader reader"
    assert "comment" not in at.session_state


def test_local_mode_says_that_there_is_no_sign_in(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_station(results)
    open_access(access.parsed(["--user", "Ada *bold*"]))
    at = page(None, monkeypatch)
    assert at.text[0].value == "Ada *bold* reviewer"
    assert any("Local mode, no sign-in" in caption.value for caption in at.caption)
    assert not [b for b in at.button if b.key == "sign_out"]
    open_access(Access())


# OIDC: Streamlit does the sign-in, this decides what it is worth


@pytest.fixture
def oidc(way: Access, clock: list[float]) -> Access:
    assert way.accounts is not None
    put(way.accounts.path, "ada@example.org", Role.reviewer)
    return open_access(Access(Mode.oidc, "", way.accounts, way.sessions))


def oidc_page(clock: list[float], **more) -> AppTest:
    at = AppTest.from_file(str(PAGE), default_timeout=60)
    told = {"is_logged_in": True, "iss": "https://id", "sub": "1", "iat": clock[0], "email": "ada@example.org"}
    at.user = told | more
    return at.run()


def test_an_oidc_user_has_the_role_of_the_file(oidc: Access, clock: list[float]) -> None:
    assert oidc_page(clock).text[0].value == "ada@example.org reviewer"


@pytest.mark.parametrize(
    "told",
    [{"email": "eve@example.org"}, {"email_verified": False}, {"iat": 1.0}, {"iat": None}, {"sub": ""}, {"is_logged_in": False}],
)
def test_oidc_identities_without_account_or_freshness_stay_out(oidc: Access, clock: list[float], told: dict) -> None:
    at = oidc_page(clock, **told)
    assert not at.text
    assert not at.exception


def test_an_idle_oidc_session_is_not_opened_again_by_reloading(oidc: Access, clock: list[float]) -> None:
    begun = clock[0]
    assert oidc_page(clock).text
    clock[0] += 901
    assert not oidc_page([begun]).text
    assert oidc_page(clock).text  # signed in anew at the provider


def test_a_link_to_a_picture_ends_with_the_sign_in_that_made_it(
    oidc: Access, client: TestClient, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert oidc.accounts is not None
    account = oidc.accounts.get("ada@example.org")
    token = oidc.sessions.begin("ada@example.org", access.proof(account))
    monkeypatch.setattr(access, "handle", lambda: token)
    link = transport.picture_url(DONE, "image")
    assert token not in link
    assert client.get(link).status_code == 200
    assert client.get(link[:-2]).status_code == 403
    oidc.sessions.end(token)
    assert client.get(link).status_code == 403
    token = oidc.sessions.begin("ada@example.org", access.proof(account))
    link = transport.picture_url(DONE, "image")
    assert client.get(link).status_code == 200
    clock[0] += 901  # nobody at work
    assert client.get(link).status_code == 403
    monkeypatch.setattr(access, "handle", lambda: None)
    assert client.get(transport.picture_url(DONE, "image")).status_code == 403


# Doors


@pytest.mark.parametrize(
    ("door", "message"),
    [
        (Door(host="0.0.0.0"), "this machine only"),
        (Door(host="10.0.0.5"), "--auth users"),
        (Door(names=("viewer.hospital.org",)), "this machine only"),
        (Door(mode="users"), "needs --users"),
        (Door(mode="users", users=Path("u"), host="10.0.0.5"), "--tls-cert"),
        (Door(mode="users", users=Path("u"), host="0.0.0.0", plain=True), "--name"),
        (Door(mode="magic"), "local, users, oidc"),
        (Door(cert=Path("c")), "go together"),
        (Door(idle_minutes=0), "more than 0"),
        (Door(user="x" * 65), "--user"),
        (Door(user="a\nb"), "--user"),
    ],
)
def test_unsafe_doors_are_refused(door: Door, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        command(tmp_path, port=1, open_browser=False, door=door)


def test_a_door_for_others_says_its_names_and_uses_secure_cookies(tmp_path: Path) -> None:
    users = tmp_path / "users.yaml"
    put(users, "ada", Role.reader)
    door = Door("10.0.0.5", ("viewer",), "users", users, cert=tmp_path / "c.pem", key=tmp_path / "k.pem", idle_minutes=5)
    line = command(tmp_path, port=8443, open_browser=False, door=door)
    assert line[line.index("--server.address") + 1] == "10.0.0.5"
    assert line[line.index("--server.maxUploadSize") + 1] == "1"
    made = access.parsed(line[line.index("--") + 2 :])
    assert (made.mode, made.secure, made.sessions.idle_s) == (Mode.users, True, 300)
    assert made.cookie.startswith("__Host-")
    assert set(made.hosts) == {"10.0.0.5", "viewer", "127.0.0.1", "localhost"}
    proxied = Door(names=("viewer.hospital.org",), mode="users", users=users)
    assert access.parsed(proxied.checked().options()).secure  # TLS ends at a proxy on this machine
