from __future__ import annotations

import re
from typing import Any

from skipviz.app.components.written_text import LAST_SHOWN, written_html
from skipviz.plots.style.palette import CIVIDIS
from skipviz.recording.generating import StreamedToken


def token(place: int, text: str, **more: Any) -> StreamedToken:
    given: dict[str, Any] = {"phase": "decode", "layers_used": 6.0} | more
    return StreamedToken(position=place, token_id=0, text=text, **given)


def test_the_ends_of_the_scale_have_the_ends_of_the_palette() -> None:
    shown = written_html([token(0, "a", layers_used=2.0), token(1, "b")], (2.0, 6.0))
    colours = re.findall(r"background:rgb\((\d+),(\d+),(\d+)\)", shown)
    found = ["#" + "".join(f"{int(each):02X}" for each in colour) for colour in colours]
    assert found == [CIVIDIS[0], CIVIDIS[-1]]
    assert 'title="token 0: layers used 2"' in shown


def test_prompt_and_text_stand_apart_and_what_is_not_read_has_no_colour() -> None:
    shown = written_html(
        [token(0, "a", phase="prefill"), token(1, "b"), token(2, "c", layers_used=None)],
        (2.0, 6.0), parts=1,
    )  # fmt: skip
    prompt, text = shown.split("Written token by token")
    assert "Prompt, read at once (prefill), 1 token<" in prompt
    assert ">a</span>" in prompt
    assert text.count("<span") == 2
    assert re.search(r'outline:[^>]*title="token 1: layers used 6">b<', text)
    assert re.search(r'style="border-bottom:2px dotted[^>]*title="not read yet">c<', text)


def test_texts_are_text() -> None:
    shown = written_html([token(0, '<script>alert("x")</script>\x1b')], (2.0, 6.0))
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "\x1b" not in shown


def test_a_long_text_shows_its_end() -> None:
    shown = written_html([token(n, f"w{n} ") for n in range(LAST_SHOWN + 5)], (2.0, 6.0))
    assert f"{LAST_SHOWN + 5:,} tokens, the last {LAST_SHOWN:,} shown" in shown
    assert ">w4 <" not in shown
    assert ">w5 <" in shown
