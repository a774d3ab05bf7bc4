"""Environment variables: a wrong value is refused by name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from omni import env
from omni.interfaces import own_ipv4
from tests.panel import ROOT


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", True),
        ("true", True),
        ("1", True),
        ("YES", True),
        ("off", False),
        ("False", False),
        ("0", False),
    ],
)
def test_booleans(raw: str, expected: bool) -> None:
    assert env.envbool("X", True, {"X": raw}) is expected


REFUSED: list[tuple[Callable[[dict[str, str]], object], str]] = [
    (lambda e: env.envbool("X", True, e), "maybe"),
    (lambda e: env.envint("X", 1, low=0, high=5, environ=e), "six"),
    (lambda e: env.envint("X", 1, low=0, high=5, environ=e), "6"),
    (lambda e: env.envrange("X", (1, 2), low=1, high=9, environ=e), "5"),
    (lambda e: env.envrange("X", (1, 2), low=1, high=9, environ=e), "7-3"),
    (lambda e: env.envrange("X", (1, 2), low=1, high=9, environ=e), "7-30"),
]


@pytest.mark.parametrize(("read", "raw"), REFUSED)
def test_a_wrong_value_is_refused_with_its_name_and_value(
    read: Callable[[dict[str, str]], object], raw: str
) -> None:
    with pytest.raises(env.EnvError, match=f"X is .*{raw}"):
        read({"X": raw})


def test_a_list_drops_blanks() -> None:
    assert env.envlist("X", environ={"X": " a, ,b,"}) == ["a", "b"]


def test_a_secret_comes_from_the_variable_or_from_the_file_it_points_to(
    tmp_path: Path,
) -> None:
    (tmp_path / "secret").write_text("from a file\n")
    assert env.envsecret("X", {"X": "direct"}) == "direct"
    assert env.envsecret("X", {"X_FILE": str(tmp_path / "secret")}) == "from a file"
    assert env.envsecret("X", {}) is None
    with pytest.raises(env.EnvError, match="X_FILE names .*gone"):
        env.envsecret("X", {"X_FILE": str(tmp_path / "gone")})


PRIVATE_OWN = frozenset({"127.0.0.1", "10.0.0.1", "192.0.2.2"})


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.9", "127.0.0.9"),
        (" 10.0.0.1 ", "10.0.0.1"),
    ],
)
def test_an_address_is_loopback_or_a_private_one_of_this_machine(
    raw: str, expected: str
) -> None:
    assert env.envaddress("X", "127.0.0.1", lambda: PRIVATE_OWN, {"X": raw}) == expected


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ("0.0.0.0", "use 127.0.0.1, or one IPv4 address of a private network"),
        ("::", "private network"),
        ("::1", "private network"),
        ("fd00::2", "private network"),
        ("8.8.8.8", "private network"),
        ("192.0.2.2", "private network"),
        ("169.254.1.1", "private network"),
        ("100.64.0.1", "private network"),
        ("10.0.0", "private network"),
        ("10.0.0.1/24", "private network"),
        ("localhost", "private network"),
        (
            "10.0.0.2",
            "is no address of this machine; its private ones: 10.0.0.1, 127.0.0.1",
        ),
    ],
)
def test_any_other_address_is_refused_by_name(raw: str, says: str) -> None:
    with pytest.raises(env.EnvError, match=f"X is '{raw}'.*{says}"):
        env.envaddress("X", "127.0.0.1", lambda: PRIVATE_OWN, {"X": raw})


def test_words_must_match_and_count_once() -> None:
    assert env.envwords("X", "[A-Z]+", "capitals", {"X": "A, B,A"}) == ("A", "B")
    with pytest.raises(env.EnvError, match="X has 'a b'; use capitals"):
        env.envwords("X", "[A-Z]+", "capitals", {"X": "A,a b"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OMNI_RPC_ADDRESS", "0.0.0.0"),
        ("OMNI_RPC_ADDRESS", "10.255.254.253"),
        ("OMNI_RPC_DEVICES", "RPC0"),
        ("OMNI_RPC_DEVICES", "CPU,-x"),
    ],
)
def test_the_panel_does_not_start_with_what_must_not_be_offered(
    name: str, value: str, tmp_path: Path
) -> None:
    environment = {**os.environ, "OMNI_HOME": str(tmp_path), name: value}
    argv = [sys.executable, str(ROOT / "manage.py"), "status"]
    done = subprocess.run(
        argv, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(name) and len(done.stderr.splitlines()) == 1


def test_this_machines_own_addresses_are_asked_of_its_interfaces() -> None:
    assert "127.0.0.1" in own_ipv4()
    assert "10.255.254.253" not in own_ipv4() and not [
        a for a in own_ipv4() if ":" in a
    ]
