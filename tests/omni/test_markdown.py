"""What a model writes cannot act in the page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni.markdown import ATTRIBUTES, TAGS, render

XSS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<a href='javascript:alert(1)'>x</a>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](&#x6A;avascript&colon;alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[x](vbscript:msgbox(1))",
    "[x](file:///etc/passwd)",
    "[x](//evil.example)",
    "[x](/deployments/smol/delete/)",
    "![x](javascript:alert(1))",
    "![x](https://evil.example/track.png)",
    '![x"onerror="alert(1)](https://evil.example/a.png)',
    "![x](data:image/svg+xml;base64,PHN2Zz48L3N2Zz4=)",
    "<javascript:alert(1)>",
    "[x]: javascript:alert(1)\n\n[x]",
    "[x](https://ok.example \"onmouseover='alert(1)'\")",
    '```"><script>alert(1)</script>\ncode\n```',
    "```html\n<script>alert(1)</script>\n```",
    "```python onload=alert(1)\nx\n```",
    "`<script>alert(1)</script>`",
    "| <img src=x onerror=alert(1)> |\n|-|\n| <b onclick=alert(1)>x</b> |",
    "<style>*{display:none}</style>",
    "<div style='position:fixed'>x</div>",
    "<form action=/logout/><button>x</button></form>",
    "<base href=https://evil.example>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<math><mtext></mtext><script>alert(1)</script></math>",
    "<!--><script>alert(1)</script>-->",
    "\x00<script>alert(1)</script>",
    "<scr\x00ipt>alert(1)</scr\x00ipt>",
    "<button data-again>x</button>",
    "<template><script>alert(1)</script></template>",
]


class Elements(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def assert_harmless(html: str) -> None:
    for tag, attributes in Elements(html).found:
        assert tag in TAGS, html
        assert set(attributes) <= ATTRIBUTES.get(tag, set()) | (
            {"rel"} if tag == "a" else set()
        ), html
        if href := attributes.get("href"):
            assert re.match(r"(https?|mailto):", href), html
            assert "noopener" in (attributes["rel"] or "")


@pytest.mark.parametrize("text", XSS)
def test_the_corpus_comes_out_harmless(text: str) -> None:
    assert_harmless(render(text))


@given(
    st.text(alphabet=st.sampled_from(list("<>[]()!`\"'=/:&;#\n ajsx*_|-")), max_size=80)
)
def test_anything_comes_out_harmless(text: str) -> None:
    assert_harmless(render(text))


def test_no_image_is_ever_loaded() -> None:
    html = render("![a cat](https://example.org/cat.png)")
    assert "<img" not in html and 'href="https://example.org/cat.png"' in html


def test_code_is_highlighted_by_classes_and_can_be_copied() -> None:
    html = render("```python\ndef f(): pass\n```")
    assert '<span class="k">def</span>' in html
    assert "data-copy-code" in html and "style=" not in html


@pytest.mark.parametrize("language", ["", "no-such-language"])
def test_code_in_an_unknown_language_is_plain(language: str) -> None:
    assert "a &lt; b" in render(f"```{language}\na < b\n```")


def test_an_open_fence_is_code_to_the_end() -> None:
    assert "<pre" in render("```python\nprint(1)")


def test_structure_survives() -> None:
    html = render(
        "# T\n\n- a\n- b\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n> q\n\n~~s~~ **b**"
    )
    for tag in ("h1", "ul", "table", "blockquote", "s", "strong"):
        assert f"<{tag}" in html


def test_a_huge_text_is_shown_plain() -> None:
    assert render("*a*" * 200_000).startswith("<pre>")


# --- texts that are made to take long -------------------------------------------------------------
HOSTILE = {
    "brackets": "[" * 1_000,
    "images": "![" * 500,
    "brackets with an end": "[[]" * 333,
    "brackets in paragraphs": "[[[[[[[[[\n\n" * 90,
    "links": "[a](b) " * 140,
    "tables with many columns": (
        "|a" * 60 + "|\n" + "|-" * 60 + "|\n" + "|b\n" * 40 + "\n"
    )
    * 3,
    "emphasis": "*a _b **c __d " * 70,
    "quotes": "> " * 500,
    "lists": "- " * 500,
    "backticks": "`` ` " * 200,
    "references": "".join(f"[{n}]: x\n" for n in range(100)),
    "entities": "&amp" * 250,
    "angles": "<a " * 330,
}


def calls_of(text: str) -> int:
    """How many functions rendering it calls: what a clock would say on a machine with nothing else
    to do."""
    import sys

    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    render.cache_clear()
    sys.setprofile(count)
    try:
        render(text)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_eight_times_the_text_takes_about_eight_times_the_work(text: str) -> None:
    assert calls_of(text * 8) < 12 * calls_of(text) + 10_000


@pytest.mark.parametrize(
    "text", ["[" * 20_000, "![" * 10_000, "[[]" * 7_000, "[[[[\n\n" * 3_500]
)
def test_twenty_thousand_brackets_are_text_within_a_bounded_number_of_steps(
    text: str,
) -> None:
    assert calls_of(text) < 2_000_000
    assert render(text).count("[") == text.count("[")


def test_tables_fill_up_no_more_cells_than_a_page_can_show() -> None:
    text = ("|a" * 200 + "|\n" + "|-" * 200 + "|\n" + "|b\n" * 300 + "\n") * 20
    assert render(text).count("<td") <= 10_000


def test_links_and_tables_of_a_usual_size_are_what_they_were() -> None:
    text = "[a](https://a.example) " * 300 + "\n\n|a|b|\n|-|-|\n" + "|1|2|\n" * 200
    html = render(text)
    assert html.count("<a ") == 300 and html.count("<td") == 400


# --- what models write besides --------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r"\[E=mc^2\]", r"<p>\[E=mc^2\]</p>"),
        (r"so \(a\,b\) holds", r"<p>so \(a\,b\) holds</p>"),
        (r"$$x_1 \\ y_2$$", r"<p>$$x_1 \\ y_2$$</p>"),
        ("\\[\na_1 * b_1 *\n\\]", "<p>\\[\na_1 * b_1 *\n\\]</p>"),
        (r"\[<script>\]", r"<p>\[&lt;script&gt;\]</p>"),
        (r"a \*star\* and \[a bracket", r"<p>a *star* and [a bracket</p>"),
        (
            "- [x] done\n- [ ] **open**",
            "<ul>\n<li>☑ done</li>\n<li>☐ <strong>open</strong></li>\n</ul>",
        ),
        ("- [y] no\n\n[x] no item", "<ul>\n<li>[y] no</li>\n</ul>\n<p>[x] no item</p>"),
        ("<think></think>\n\nYes.", "<p>Yes.</p>"),
        (
            "Of `<think>` and <think>x",
            "<p>Of <code>&lt;think&gt;</code> and &lt;think&gt;x</p>",
        ),
    ],
)
def test_formulas_tasks_and_tags_are_shown_as_meant(text: str, shown: str) -> None:
    assert render(text).strip() == shown


def test_a_table_keeps_its_alignment_without_styles() -> None:
    html = render("| a | b | c |\n|:--|:-:|--:|\n| 1 | 2 | 3 |")
    assert (
        '<td class="to-center">2</td>\n<td class="to-right">3</td>' in html
        and "<td>1</td>" in html
    )
    assert "style" not in html


@pytest.mark.parametrize("end", ["</think>\nYes.", ""])
def test_thoughts_in_the_answer_are_folded_away(end: str) -> None:
    html = render(f"<think>\nhm, *so* <b>\n{end}")
    assert html.startswith(
        '<details class="thinking"><summary>Thinking</summary><p>hm, <em>so</em> &lt;b&gt;</p>'
    )
    assert html.endswith("</details><p>Yes.</p>\n" if end else "</details>")


@pytest.mark.parametrize(
    "text",
    [
        "\\[ " * 20_000,
        "$$ " * 20_001,
        "<think>" * 20_000,
        "- [x] " * 5_000,
        "\\(" * 30_000,
    ],
)
def test_what_is_never_closed_is_looked_for_once(text: str) -> None:
    assert render(text)
