"""What Omni itself wrote is carried as a type, a code or a field, and never read out of a sentence.

What another program printed has to be read, and is: see ENGINES_ARE_READ_IN.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
APPS = ("omni", "gpus", "deployments", "chat")
# The sentences of an OmniError, a Reason, a Finding and of rows that keep them.
SENTENCES = {"text", "fix", "error", "log_line", "warning", "reason", "args"}
# What looks into a text; putting one into another sentence is no reading.
LOOKS = {
    "startswith",
    "endswith",
    "partition",
    "rpartition",
    "split",
    "rsplit",
    "splitlines",
    "find",
    "rfind",
    "index",
    "count",
    "removeprefix",
    "removesuffix",
    "lower",
    "casefold",
}
PATTERNS = {"match", "search", "fullmatch", "findall", "finditer", "sub"}
# A `text` of their own that is no sentence: what is parsed, or what is being written.
PARSES_ITS_OWN_TEXT = {
    "deployments/gateway/grammar_text.py": "the grammar itself",
}
# Phrases that an engine prints, which has no other way to say it.
ENGINES_ARE_READ_IN = {
    "deployments/engines/llama_cpp.py",
    "deployments/engines/probe/binary.py",
    "deployments/supervision/log_reading.py",
}


@cache
def sources() -> tuple[tuple[str, ast.Module], ...]:
    paths = [path for app in APPS for path in sorted((ROOT / app).rglob("*.py"))]
    return tuple(
        (str(path.relative_to(ROOT)), ast.parse(path.read_text()))
        for path in paths
        if "migrations" not in path.parts
    )


class Reads(ast.NodeVisitor):
    """Finds where the sentence of an error is looked into."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.caught: list[str] = []

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:  # noqa: N802 - ast's name
        self.caught.append(node.name or "")
        self.generic_visit(node)
        self.caught.pop()

    def is_sentence(self, node: ast.expr) -> bool:
        """`x.text`, and for an error that was caught also `str(error)` and `f"{error}"`."""
        if isinstance(node, ast.Attribute):
            return node.attr in SENTENCES
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            return node.func.id in ("str", "repr") and self.is_error(node.args[0])
        if isinstance(node, ast.JoinedStr):
            values = [
                part.value
                for part in node.values
                if isinstance(part, ast.FormattedValue)
            ]
            return len(values) == 1 and self.is_error(values[0])
        return False

    def is_error(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id in self.caught

    def visit_Compare(self, node: ast.Compare) -> None:  # noqa: N802
        for operator, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(operator, ast.In | ast.NotIn) and self.is_sentence(right):
                self.found.append(ast.unparse(node))
            both = (node.left, right)
            is_equal = isinstance(operator, ast.Eq | ast.NotEq)
            if (
                is_equal
                and any(map(self.is_sentence, both))
                and any(map(_is_text, both))
            ):
                self.found.append(ast.unparse(node))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:  # noqa: N802
        if isinstance(node.func, ast.Attribute):
            looks = node.func.attr in LOOKS and self.is_sentence(node.func.value)
            matches = node.func.attr in PATTERNS and any(
                map(self.is_sentence, node.args)
            )
            if looks or matches:
                self.found.append(ast.unparse(node))
        # A function (not a class, which keeps it) that is given one half of a caught error's words
        # can only want to look into it: what is shown is the whole of it, by str().
        is_function = isinstance(node.func, ast.Name) and node.func.id.islower()
        halves = [each for each in node.args if isinstance(each, ast.Attribute)]
        if is_function and any(map(self.is_half, halves)):
            self.found.append(ast.unparse(node))
        self.generic_visit(node)

    def is_half(self, node: ast.Attribute) -> bool:
        return node.attr in SENTENCES and self.is_error(node.value)

    def visit_Subscript(self, node: ast.Subscript) -> None:  # noqa: N802
        """A part of a sentence; cutting a long one short is no reading."""
        is_shortened = isinstance(node.slice, ast.Slice) and node.slice.lower is None
        if self.is_sentence(node.value) and not is_shortened:
            self.found.append(ast.unparse(node))
        self.generic_visit(node)


def _is_text(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and bool(node.value)
    )


def reads(tree: ast.AST) -> list[str]:
    visitor = Reads()
    visitor.visit(tree)
    return visitor.found


def test_no_code_looks_into_the_sentence_of_an_error() -> None:
    found = {
        path: said
        for path, tree in sources()
        if path not in PARSES_ITS_OWN_TEXT and (said := reads(tree))
    }
    assert found == {}


def test_each_file_that_is_passed_over_still_needs_to_be() -> None:
    trees = dict(sources())
    assert [path for path in PARSES_ITS_OWN_TEXT if not reads(trees[path])] == []


def test_phrases_of_other_programs_are_looked_for_in_few_named_places() -> None:
    found = {
        path
        for path, tree in sources()
        if any(_looks_for_a_phrase(n) for n in ast.walk(tree))
    }
    assert found == ENGINES_ARE_READ_IN


def _looks_for_a_phrase(node: ast.AST) -> bool:
    """`"several words" in said`."""
    if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.In):
        return False
    left = node.left
    is_text = isinstance(left, ast.Constant) and isinstance(left.value, str)
    return is_text and len(str(left.value).split()) > 1


@pytest.mark.parametrize(
    "code",
    [
        "'no answer within' in error.text",
        "cause, _, remedy = facts.nvml.text.partition(': ')",
        "row.error.startswith('The engine')",
        "error.fix == 'Try again.'",
        "re.search('device (.*)', reason.text)",
        "error.args[0]",
        "try: pass\nexcept OmniError as error: raise no_device(endpoint, error.text) from None",
        "name = error.text[3:]",
        "try: pass\nexcept ValueError as error: found = 'line' in str(error)",
        "try: pass\nexcept ValueError as error: found = f'{error}'.split(':')",
    ],
)
def test_reading_when_a_sentence_is_looked_into_is_found(code: str) -> None:
    assert reads(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "error.code == 'not_found'",
        "text = f'{error.text} {error.fix}'.strip()",
        "row.error = str(error)[:300]",
        "kept = error.text[:300]",
        "row.error != ''",
        "if row.error and error.retry: pass",
    ],
)
def test_reading_when_a_sentence_is_only_passed_on_is_not_found(code: str) -> None:
    assert not reads(ast.parse(code))


# --- who may catch everything ---------------------------------------------------------------------
# The outermost line of a request, a thread or a task, or of one item among many that must not keep
# the others from being looked after. Each logs what it caught with its traceback, or raises it.
OUTERMOST = {
    "deployments/bench/executing.py": "the process of a benchmark",
    "deployments/gateway/activity.py": "who is told that a request begins or ends",
    "deployments/gateway/asgi.py": "a request to the gateway",
    "omni/connections.py": "a request whose body is not read yet",
    "deployments/library/fetching.py": "the thread of a download",
    "deployments/library/rows.py": "one file of a scan",
    "deployments/library/timeouts.py": "a thread whose caller gets the error",
    "deployments/supervision/host_agent.py": "one instance of a tick; raised once all were seen",
    "deployments/supervision/planned.py": "the plan of one deployment of a tick",
    "deployments/supervision/problems.py": "a turn of a loop of the agent",
}


def catch_all(tree: ast.AST) -> Iterator[ast.ExceptHandler]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            named = node.type
            if named is None or (
                isinstance(named, ast.Name)
                and named.id in ("Exception", "BaseException")
            ):
                yield node


def test_everything_is_caught_only_at_the_outermost_line() -> None:
    found = {path: len(list(catch_all(tree))) for path, tree in sources()}
    assert {path: count for path, count in found.items() if count} == dict.fromkeys(
        OUTERMOST, 1
    )


def test_nothing_that_is_caught_whole_is_lost() -> None:
    for path, tree in sources():
        for handler in catch_all(tree):
            body = "\n".join(map(ast.unparse, handler.body))
            assert "log.exception(" in body or "failed.append(error)" in body, path
