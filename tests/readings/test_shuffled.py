from __future__ import annotations

from skipviz.readings.shuffled import shuffled_reading

BY_SITE = (0.36, 0.3, 0.4)


def test_the_choice_of_tokens_is_what_whole_rows_say() -> None:
    said = shuffled_reading(BY_SITE, (0.25, 0.2, 0.3))
    assert said.startswith(
        "It matters which tokens skip: with others the loss is 0.250 nats higher"
    )
    assert "(95% interval 0.200 to 0.300)" in said
    assert "one by one the loss changes by +0.360; there tokens get mixtures of decisions" in said
    assert "not distinguishable" in shuffled_reading(BY_SITE, (0.01, -0.02, 0.04))
    assert "worse than chance: with others the loss is 0.100" in shuffled_reading(
        BY_SITE, (-0.1, -0.2, -0.05)
    )


def test_one_text_has_no_interval() -> None:
    nan = float("nan")
    for ends in ((0.25, 0.25), (nan, nan), (None, None)):
        said = shuffled_reading(BY_SITE, (0.25, *ends))
        assert "+0.250 nats per token on this one text" in said
        assert "95%" not in said
