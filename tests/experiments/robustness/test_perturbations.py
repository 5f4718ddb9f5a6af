from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipviz.experiments.robustness.perturbations import (
    LOOK_ALIKES,
    PERTURBATIONS,
    Surface,
    look_alikes,
    lower_case,
    spacing,
    surface,
    typos,
    upper_case,
)

TEXT = "  Über Straße: the quick brown fox jumps\nover the lazy dog, and sleeps.  "


def changed(after: Surface) -> list[int]:
    pairs = zip(surface(TEXT).words, after.words, strict=True)
    return [place for place, (old, new) in enumerate(pairs) if old != new]


@pytest.mark.slow
@given(text=st.text(), seed=st.integers(0, 5))
@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_every_word_stays_in_its_place(kind: str, text: str, seed: int) -> None:
    before, after = surface(text), PERTURBATIONS[kind](text, seed=seed)
    assert before.text == text
    assert len(after.spans) == len(before.spans) == len(after.gaps)
    assert after.words == after.text.split() or any(not w.strip() for w in after.words)
    assert after == PERTURBATIONS[kind](text, seed=seed)


def test_what_each_does() -> None:
    assert upper_case(TEXT, seed=0).text == TEXT.upper()
    assert lower_case(TEXT, seed=0).text == TEXT.lower()
    assert upper_case(TEXT, seed=0).words[1] == "STRASSE:"
    doubled = spacing("a b\nc  d", seed=0)
    assert (doubled.text, doubled.gaps) == ("a  b\nc    d", ("", "  ", "\n", "    "))


def test_typos_are_slips_inside_a_fifth_of_the_words() -> None:
    seen = set()
    for seed in range(20):
        after = typos(TEXT, seed=seed)
        places = changed(after)
        assert len(places) == 2  # of eight words of four letters or more
        for place in places:
            old, new = surface(TEXT).words[place], after.words[place]
            assert (old[0], old[-1]) == (new[0], new[-1])
            assert len(old) >= 4
            seen.add(len(new) - len(old))
    assert seen == {-1, 0, 1}
    assert typos(TEXT, seed=0) != typos(TEXT, seed=1)


def test_look_alikes_are_other_letters_of_the_same_look() -> None:
    after = look_alikes(TEXT, seed=0)
    assert len(changed(after)) == 3  # of thirteen, all of which could be
    assert len(after.text) == len(TEXT)
    for latin, other in LOOK_ALIKES.items():
        assert unicodedata.name(latin).startswith("LATIN")
        assert unicodedata.name(other).startswith(("CYRILLIC", "GREEK"))
        assert latin.isupper() == other.isupper()


def test_a_text_with_nothing_to_change_stays_as_it_is() -> None:
    for kind in ("upper case", "lower case", "typos", "look-alikes"):
        assert PERTURBATIONS[kind]("12 + 7 = 19", seed=0).text == "12 + 7 = 19"
