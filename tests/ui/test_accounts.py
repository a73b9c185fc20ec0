"""Files of users, passwords, sessions and the brake on guessing."""

import base64
import hashlib
from pathlib import Path

import pytest
import yaml

from medvl.errors import ConfigError
from medvl_pipelines import view
from medvl_ui import accounts
from medvl_ui.accounts import Account, Accounts, Role, opens, put, remove
from medvl_ui.sessions import Attempts, Sessions

PASSWORD = "correct horse battery"


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(accounts, "_N", 2**4)  # a test needs no slow hash
    path = tmp_path / "users.yaml"
    put(path, "ada", Role.reviewer, PASSWORD)
    put(path, "Gräfin Öz", Role.admin, PASSWORD + "!")
    return path


def test_roles_cover_those_below() -> None:
    assert [[a.covers(b) for b in Role] for a in Role] == [[True, False, False], [True, True, False], [True, True, True]]


def test_the_file_holds_scrypt_hashes_and_is_for_its_owner(users: Path) -> None:
    assert users.stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in users.read_text()
    entry = next(user for user in yaml.safe_load(users.read_text())["users"] if user["name"] == "ada")
    kind, n, r, p, salt, digest = entry["password"].split("$")
    expected = hashlib.scrypt(PASSWORD.encode(), salt=base64.b64decode(salt), n=int(n), r=int(r), p=int(p), dklen=32)
    assert (kind, base64.b64decode(digest)) == ("scrypt", expected)


def test_the_cost_is_what_owasp_advises() -> None:
    assert (accounts._N, accounts._R, accounts._P) == (2**15, 8, 3)


def test_only_the_right_password_opens_and_nobody_costs_the_same(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Accounts(users)
    assert opens(known.get("ada"), PASSWORD)
    assert not opens(known.get("ada"), PASSWORD + " ")
    worked = []
    whole = accounts._scrypt
    monkeypatch.setattr(accounts, "_scrypt", lambda *args: worked.append(args[2]) or whole(*args))
    assert not opens(None, PASSWORD)
    assert not opens(Account(name="by oidc", role=Role.reader), "")
    assert len(worked) == 2


def test_changes_count_at_once(users: Path) -> None:
    known = Accounts(users)
    put(users, "ada", Role.reader, PASSWORD)
    ada = known.get("ada")
    assert ada is not None
    assert ada.role == Role.reader
    remove(users, "ada")
    assert known.get("ada") is None
    assert [user.name for user in known.everybody()] == ["Gräfin Öz"]


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (None, 0, "--add-user"),
        ("users: []", 0o644, "chmod 600"),
        ("users: [{name: a, role: king}]", 0o600, r"users\.0\.role"),
        ("users: [{name: a, role: admin}, {name: a, role: reader}]", 0o600, "twice"),
        ("users: [{name: '<b>', role: reader}]", 0o600, r"users\.0\.name"),
        ("{", 0o600, "cannot be read"),
        ("schema: medvl.users/9", 0o600, "schema"),
    ],
)
def test_files_that_are_not_as_they_must_be(tmp_path: Path, content: str | None, mode: int, message: str) -> None:
    path = tmp_path / "users.yaml"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    with pytest.raises(ConfigError, match=message):
        Accounts(path)


def test_short_passwords_and_strange_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="12 characters"):
        put(tmp_path / "u", "ada", Role.reader, "short")
    with pytest.raises(ConfigError, match="letters"):
        put(tmp_path / "u", "ada\n- name: eve", Role.reader, PASSWORD)


def test_the_command_asks_twice(users: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answers = iter([PASSWORD, "something else", PASSWORD, PASSWORD])
    monkeypatch.setattr(view, "getpass", lambda prompt: next(answers))
    with pytest.raises(ConfigError, match="differ"):
        view.keep_users(users, "eve", "reader", None, password=True)
    assert view.keep_users(users, "eve", "reader", None, password=True) == 0
    assert opens(Accounts(users).get("eve"), PASSWORD)
    assert PASSWORD not in capsys.readouterr().out
    with pytest.raises(ConfigError, match="reader, reviewer, admin"):
        view.keep_users(users, "eve", "king", None, password=False)
    assert view.keep_users(users, None, "", "eve", password=False) == 0
    with pytest.raises(ConfigError, match="no user of that name"):
        view.keep_users(users, None, "", "eve", password=False)


def test_sessions_end_when_idle_when_old_and_when_signed_out() -> None:
    now = [0.0]
    sessions = Sessions(900, 3600, clock=lambda: now[0])
    token = sessions.begin("ada", "p")
    assert len(token) >= 43  # 256 bits in base64
    now[0] = 899
    assert sessions.active(token) is not None
    now[0] = 899 + 899
    assert sessions.find(token) is not None  # looking is not doing
    now[0] = 899 + 900
    assert sessions.find(token) is None
    assert sessions.was(token)
    token = sessions.begin("ada", "p")
    for _ in range(8):
        now[0] += 450
        sessions.active(token)
    assert sessions.find(token) is None  # an hour old
    token, other = sessions.begin("ada", "p"), sessions.begin("eve", "p")
    sessions.end(token)
    assert sessions.find(token) is None
    assert [session.name for session in sessions.everybody()] == ["eve"]
    assert sessions.find(other + "x") is sessions.find("") is sessions.find(None) is None


def test_guessing_is_slowed_for_a_name_and_for_all() -> None:
    now = [0.0]
    attempts = Attempts(per_name=3, overall=6, window_s=60, clock=lambda: now[0])
    assert [attempts.begin("ada") for _ in range(4)] == [0, 0, 0, 60]
    now[0] = 10
    assert attempts.begin("ada") == 50
    assert [attempts.begin(name) for name in ("b", "c", "d", "e")] == [0, 0, 0, 50]  # the window of all is full
    now[0] = 61
    assert attempts.begin("ada") == 0
    attempts.succeeded("ada")
    assert [attempts.begin("ada") for _ in range(3)] == [0, 0, 0]
