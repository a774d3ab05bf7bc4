"""The glossary says what is so: its words stand where it says, and nowhere stands a word that it
retired."""

from __future__ import annotations

import ast
import html
import re
from functools import cache
from pathlib import Path

import pytest
from django.test import Client

from tests.helpers import squeezed

ROOT = Path(__file__).resolve().parent.parent.parent
APPS = ("omni", "gpus", "deployments", "chat")
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
TERMS, RETIRED = GLOSSARY.split("## Words that are not used")
ENTRY = re.compile(r"^- (.*?)(?=^- |^## |\Z)", re.M | re.S)
ENTRIES = [re.sub(r"\s+", " ", entry).strip() for entry in ENTRY.findall(TERMS)]
# What happened stands as it was told then.
MAY_SAY_THEM = ("CHANGELOG.md", "docs/glossary.md")


def words_of(where: str, quoted: str) -> list[str]:
    """The words behind “Page:” or “Code:” of every entry."""
    parts = [
        part for entry in ENTRIES for part in re.findall(rf"{where}: ([^.]*)", entry)
    ]
    return [word for part in parts for word in re.findall(quoted, part)]


@cache
def sources() -> list[ast.Module]:
    files = [
        path
        for app in APPS
        for path in (ROOT / app).rglob("*.py")
        if "migrations" not in path.parts
    ]
    return [ast.parse(path.read_text()) for path in files]


def written() -> list[Path]:
    """Everything that people write here, but for migrations, which stay as they ran."""
    folders = (*APPS, "templates", "static", "tests", "benchmarks", "docs")
    kinds = {".py", ".html", ".js", ".css", ".md"}
    found = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    below = [p for p in found if p.suffix in kinds and "migrations" not in p.parts]
    return [*below, *ROOT.glob("*.md"), *ROOT.glob("*.toml")]


@cache
def contents() -> dict[str, tuple[str, str]]:
    """By the name of the file, as it is written and in lowercase."""
    found = {path.relative_to(ROOT).as_posix(): path.read_text() for path in written()}
    return {name: (text, text.lower()) for name, text in found.items()}


@cache
def shown() -> str:
    """All that may come to stand on a page: templates, scripts, and texts in the code."""
    files = [
        *(ROOT / "templates").rglob("*.html"),
        *(ROOT / "static" / "js").glob("*.js"),
    ]
    texts = [re.sub(r"\s+", " ", html.unescape(path.read_text())) for path in files]
    for module in sources():
        texts += [
            node.value
            for node in ast.walk(module)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
    return "\n".join(texts).lower()


@cache
def names() -> set[str]:
    found = {path.stem for app in APPS for path in app_files(app)}
    for module in sources():
        for node in ast.walk(module):
            found |= {
                getattr(node, part)
                for part in ("name", "id", "attr", "arg")
                if isinstance(getattr(node, part, None), str)
            }
    return found


def app_files(app: str) -> list[Path]:
    return list((ROOT / app).rglob("*.py"))


def test_every_term_has_a_meaning_and_is_there_once() -> None:
    terms = [
        re.findall(r"\*\*([^*]+)\*\*", entry.partition(":")[0]) for entry in ENTRIES
    ]
    assert len(terms) > 50 and all(terms)
    flat = [term for each in terms for term in each]
    assert len(flat) == len(set(flat))
    assert all(len(entry.partition(":")[2].split()) > 4 for entry in ENTRIES)


@pytest.mark.parametrize("word", words_of("Page", "“([^”]+)”"))
def test_a_word_of_the_pages_is_shown(word: str) -> None:
    assert word.lower() in shown()


@pytest.mark.parametrize("name", words_of("Code", "`([^`]+)`"))
def test_a_word_of_the_code_is_a_name_there(name: str) -> None:
    assert name in names()


@pytest.mark.parametrize("phrase", re.findall("“([^”]+)”", RETIRED))
def test_a_retired_word_stands_nowhere(phrase: str) -> None:
    spaced = r"\s+".join(re.escape(word) for word in phrase.split())
    wanted = re.compile(rf"(?<![\w-]){spaced}(?![\w-])", re.I)
    # A search that ignores case takes much longer than one that does not.
    first = phrase.split()[0].lower()
    saying = {
        name
        for name, (text, lower) in contents().items()
        if first in lower and wanted.search(text)
    }
    assert saying <= set(MAY_SAY_THEM)


def test_the_page_shows_it_to_whoever_is_logged_in(
    viewer: Client, anonymous: Client
) -> None:
    page = squeezed(viewer.get("/glossary/").content.decode())
    assert "<strong>drain lock</strong>" in page and "<h2>Requests</h2>" in page
    assert 'href="/glossary/"' in squeezed(viewer.get("/models/").content.decode())
    assert anonymous.get("/glossary/").status_code == 302
