"""Markdown, of a model or of a file of ours → HTML that may stand in a page.

The only module that talks to markdown-it, Pygments and nh3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from html import escape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock, table
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline, image, link
from markdown_it.token import Token
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

LONGEST_MARKDOWN = 400_000
LONGEST_HIGHLIGHTED = 30_000
# Of one text. A label is looked for from its bracket on, within those it is nested in; a row of a
# table is filled up to the columns of its head. Beyond this brackets are text, and a table is a
# paragraph.
MOST_LABELS = 2_000
MOST_CELLS = 10_000
TAGS = {
    *(
        "p",
        "br",
        "hr",
        "em",
        "strong",
        "s",
        "blockquote",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "ul",
        "ol",
        "li",
    ),
    *(
        "a",
        "code",
        "pre",
        "span",
        "div",
        "button",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    ),
    *("details", "summary"),
}
ATTRIBUTES = {
    "a": {"href", "title", "target"},
    "code": {"class"},
    "span": {"class"},
    "div": {"class", "tabindex"},
    "pre": {"tabindex"},
    "button": {"type", "class", "data-copy-code"},
    "ol": {"start"},
    "table": {"class"},
    "th": {"class"},
    "td": {"class"},
    "details": {"class"},
}
SCHEMES = {"http", "https", "mailto"}
InlineRule = Callable[[StateInline, bool], bool]
# At the beginning only: elsewhere somebody may write about the tag.
_THOUGHT = re.compile(r"\s*<think>(?P<inside>.*?)(?:</think>|\Z)", re.S)
# Formulas keep their backslashes, which Markdown would take for escapes of its own.
_FORMULAS = {"\\[": "\\]", "\\(": "\\)", "$$": "$$"}
UNCLOSED = "unclosed"
_BOXES = {"[ ] ": "☐ ", "[x] ": "☑ ", "[X] ": "☑ "}
_formatter = HtmlFormatter(nowrap=True)


@lru_cache(maxsize=1024)
def render(text: str) -> str:
    """Safe HTML. Raw HTML comes out as text, images as links, links only to web and mail
    addresses."""
    if len(text) > LONGEST_MARKDOWN:
        return f"<pre>{escape(text)}</pre>"
    return nh3.clean(
        _rendered(text),
        tags=TAGS,
        attributes=ATTRIBUTES,
        attribute_filter=_absolute_links,
        url_schemes=SCHEMES,
        link_rel="noopener noreferrer nofollow",
    )


def _rendered(text: str) -> str:
    """Some engines leave what a model thinks in the answer, between tags of the model's own."""
    thought = _THOUGHT.match(text)
    if not thought:
        return str(_markdown.render(text))
    inside = thought["inside"].strip()
    rest = text[thought.end() :]
    shown = (
        "<details"
        f' class="thinking"><summary>Thinking</summary>{_markdown.render(inside)}</details>'
    )
    if inside:
        return f"{shown}{_markdown.render(rest)}"
    return str(_markdown.render(rest))


def _absolute_links(tag: str, attribute: str, value: str) -> str | None:
    """A relative address would lead to the panel's own pages."""
    if attribute == "href" and value.partition(":")[0].lower() not in SCHEMES:
        return None
    return value


def _fence(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    language = (tokens[index].info.split() or [""])[0][:40]
    copy = (
        '<button type="button" class="btn btn-small btn-quiet"'
        ' data-copy-code="1">Copy</button>'
    )
    head = (
        f'<div class="code-head"><span>{escape(language or "text")}</span>{copy}</div>'
    )
    code = _highlighted(tokens[index].content, language)
    return (
        f'<div class="code-block">{head}<pre'
        f' tabindex="0"><code>{code}</code></pre></div>\n'
    )


def _within_labels(rule: InlineRule) -> InlineRule:
    """The rule while the text has looked for few enough labels."""

    def tried(state: StateInline, silent: bool) -> bool:
        if state.src[state.pos] not in "[!":
            return False
        state.env["labels"] = tried_so_far = state.env.get("labels", 0) + 1
        return tried_so_far <= MOST_LABELS and rule(state, silent)

    return tried


def _within_cells(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A table while the text has few enough cells, those that are only filled up included."""
    begins = table(state, start, end, True)
    if silent or not begins:
        return begins
    rows = 1
    while start + rows < end and not state.isEmpty(start + rows):
        rows += 1
    line = state.src[state.bMarks[start] : state.eMarks[start]]
    state.env["cells"] = cells = state.env.get("cells", 0) + rows * (
        line.count("|") + 1
    )
    return cells <= MOST_CELLS and table(state, start, end, False)


def _highlighted(code: str, language: str) -> str:
    if not language or len(code) > LONGEST_HIGHLIGHTED:
        return escape(code)
    try:
        return highlight(code, get_lexer_by_name(language, stripnl=False), _formatter)
    except ClassNotFound:
        return escape(code)


def _image(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    """A link instead: a page that loads what a model names tells a stranger that it was read."""
    address = escape(str(tokens[index].attrs.get("src", "")), quote=True)
    return (
        f'<a href="{address}"'
        f' target="_blank">{escape(tokens[index].content or "image")}</a>'
    )


def _link_open(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    tokens[index].attrSet("target", "_blank")
    return self.renderToken(tokens, index, options, env)


def _table_open(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    return '<div class="table-wrap" tabindex="0"><table class="table">\n'


def _table_close(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    return "</table></div>\n"


def _cell_open(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    """A column's alignment as a class: a page has no styles of its own."""
    token = tokens[index]
    side = str(token.attrs.pop("style", "")).removeprefix("text-align:")
    if side in ("center", "right"):
        token.attrSet("class", f"to-{side}")
    return self.renderToken(tokens, index, options, env)


def _formula(state: StateInline, silent: bool) -> bool:
    opening = state.src[state.pos : state.pos + 2]
    closing = _FORMULAS.get(opening)
    if closing is None or opening in state.env.get(UNCLOSED, {}).get(state.src, ()):
        return False
    end = state.src.find(closing, state.pos + 2, state.posMax)
    if end < 0:
        # Looked for once in a block, not at every opening.
        state.env[UNCLOSED] = {
            state.src: {*state.env.get(UNCLOSED, {}).get(state.src, ()), opening}
        }
        return False
    if not silent:
        state.push("text", "", 0).content = state.src[state.pos : end + 2]
    state.pos = end + 2
    return True


def _boxes(state: StateCore) -> None:
    """Items of a list of tasks: a box instead of the brackets."""
    for item, paragraph, inline in zip(
        state.tokens, state.tokens[1:], state.tokens[2:], strict=False
    ):
        if (item.type, paragraph.type, inline.type) != (
            "list_item_open",
            "paragraph_open",
            "inline",
        ):
            continue
        first = inline.children[0] if inline.children else None
        if first and first.type == "text" and (box := _BOXES.get(first.content[:4])):
            first.content = box + first.content[4:]


_markdown = MarkdownIt(
    "js-default", {"html": False, "linkify": False, "typographer": False}
)
_markdown.inline.ruler.at("link", _within_labels(link))
_markdown.inline.ruler.at("image", _within_labels(image))
_markdown.block.ruler.at("table", _within_cells, {"alt": ["paragraph", "reference"]})
for _rule, _render in (
    ("fence", _fence),
    ("code_block", _fence),
    ("image", _image),
    ("link_open", _link_open),
    ("table_open", _table_open),
    ("table_close", _table_close),
    ("th_open", _cell_open),
    ("td_open", _cell_open),
):
    _markdown.add_render_rule(_rule, _render)
_markdown.inline.ruler.before("escape", "formula", _formula)
_markdown.core.ruler.push("boxes", _boxes)
