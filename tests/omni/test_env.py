"""Environment variables: a wrong value is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from omni import env


@pytest.mark.parametrize(
    ("raw", "expected"),
    [("", True), ("true", True), ("1", True), ("YES", True), ("off", False), ("False", False), ("0", False)],
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
def test_a_wrong_value_is_refused_with_its_name_and_value(read: Callable[[dict[str, str]], object], raw: str) -> None:
    with pytest.raises(env.EnvError, match=f"X is .*{raw}"):
        read({"X": raw})


def test_a_list_drops_blanks() -> None:
    assert env.envlist("X", environ={"X": " a, ,b,"}) == ["a", "b"]


def test_a_secret_comes_from_the_variable_or_from_the_file_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from a file\n")
    assert env.envsecret("X", {"X": "direct"}) == "direct"
    assert env.envsecret("X", {"X_FILE": str(tmp_path / "secret")}) == "from a file"
    assert env.envsecret("X", {}) is None
    with pytest.raises(env.EnvError, match="X_FILE names .*gone"):
        env.envsecret("X", {"X_FILE": str(tmp_path / "gone")})
