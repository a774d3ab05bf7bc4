"""What is listed as used by somebody else is really there, and read where the list says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "pyproject.toml").read_text()
VULTURE = tomllib.loads(TEXT)["tool"]["vulture"]


def words_of(*patterns: str) -> set[str]:
    return {
        word
        for pattern in patterns
        for path in ROOT.glob(pattern)
        for word in re.findall(r"\w+", path.read_text())
    }


def named_after(comment: str) -> list[str]:
    """The names between this comment of the list and the next one."""
    after = TEXT.split(comment, 1)[1]
    return re.findall(r'"(\w+)"', re.split(r"\n  #|\n\]", after, maxsplit=1)[0])


def test_each_name_that_is_left_out_still_exists() -> None:
    known = words_of(*(f"{app}/**/*.py" for app in VULTURE["paths"]))
    exact = {name for name in VULTURE["ignore_names"] if name.isidentifier()}
    assert len(exact) > 50 and exact - known == set()


def test_what_templates_are_said_to_read_stands_in_one() -> None:
    names = named_after("# Templates read these")
    assert len(names) > 20
    assert set(names) - words_of("templates/**/*.html") == set()


def test_what_scripts_are_said_to_read_stands_in_one_or_in_a_template() -> None:
    names = named_after("# or scripts,")
    assert set(names) - words_of("static/js/*.js", "templates/**/*.html") == set()
