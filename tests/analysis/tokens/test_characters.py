from __future__ import annotations

from skipviz.analysis.tokens.characters import text_around
from tests.synthetic import make_trace

TOKENS, TEXTS = 24, 2


def test_the_text_around_a_token_has_every_character_once() -> None:
    made = make_trace(tokens=TOKENS, sequences=TEXTS)  # tokens 3 to 5 share one character
    whole = {
        sequence: "".join(part.unique("span", maintain_order=True)["text"])
        for (sequence,), part in made.tokens.group_by("sequence", maintain_order=True)
    }
    for token in range(TOKENS):
        before, after = text_around(made, token, tokens=TOKENS)
        row = made.tokens.row(token, named=True)
        text = whole[row["sequence"]]
        assert text.endswith(after)
        assert before == text[: len(before)]
        assert len(before) == row["char_start"]


def test_no_more_tokens_are_shown_than_asked_for() -> None:
    made = make_trace(tokens=TOKENS, sequences=TEXTS)
    texts = made.tokens["text"]
    before, after = text_around(made, 9, tokens=2)
    assert (before, after) == (texts[7] + texts[8], texts[10] + texts[11])
    assert text_around(made, 0, tokens=2)[0] == ""
