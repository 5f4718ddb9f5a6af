from __future__ import annotations

import re

import pytest
from markdown_it import MarkdownIt

from skipviz.app.components.plain_text import plain

# GitHub's links as mdast-util-gfm-autolink-literal looks for them, and Streamlit's icons and
# signs: all on the text that is left when backslashes and entities are gone.
LATER = re.compile(
    r"(?i:https?://|www(?=\.))[-.\w]|[-.\w+]+@[-\w]+(\.[-\w]+)+"
    r"|:material/|:[\w+-]+:|(?<!\S)(<->|->|<-|--|>=|<=|~=)(?!\S)"
)
SHOWN = [
    "&lt;b&gt; www.example.org a@b.org",
    "http://example.org/x",
    "(HTTPS://a.b) WWW.a.b",
    "mailto:a@b.org",
    "&amp; & &#64;",
    ":smile: :+1: :streamlit:",
    "see :material/home:",
    "a -- b -> c <- d <-> e >= f <= g ~= h",
    "->",
    "- item",
    "12) item",
    "1.",
    "a\n===",
    "a\n-",
    "---",
    "a\n+ b",
    "# head",
    "    code",
    "$x$ `y` *z* __w__ ~~v~~ [u](t) ![s](r) <b>q</b> p\\*",
    "|a|b|\n|-|-|",
]


@pytest.mark.parametrize("text", SHOWN)
def test_markdown_shows_a_text_as_it_is(text: str) -> None:
    blocks = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(plain(text))
    assert [block.type for block in blocks] == ["paragraph_open", "inline", "paragraph_close"]
    parts = blocks[1].children or []
    assert {part.type for part in parts} <= {"text", "softbreak"}
    seen = "".join("\n" if part.type == "softbreak" else part.content for part in parts)
    assert seen.replace("\u2060", "") == text
    assert not LATER.search(seen)


@pytest.mark.parametrize(
    "text", ["corpus.jsonl:1 and 2", "0.5 nats", "a-b, (c): d", "-0.5", "C:/x", "--flag", ""]
)
def test_other_texts_get_no_invisible_characters(text: str) -> None:
    assert "\u2060" not in plain(text)
