from __future__ import annotations

from skipviz.readings.tokens.word_lists import word_lists_reading
from tests.analysis.tokens.test_word_lists import TEXTS, traced


def test_that_english_lists_were_not_used_is_said_with_the_reason() -> None:
    assert word_lists_reading(traced(TEXTS["English"])) == ""
    said = word_lists_reading(traced(TEXTS["German"]))
    assert said.startswith("Here function and content words are one class, “words”")
    assert "lists are English and were not used, as only 4% of the words of this text" in said
    assert "word frequency is unknown and not controlled for" in said
    said = word_lists_reading(traced(TEXTS["English"], TEXTS["Russian"], TEXTS["English"]))
    assert said.startswith("In 1 of 3 texts, function and content words are one class")
    assert "of these texts" in word_lists_reading(traced(TEXTS["French"], TEXTS["Russian"]))
