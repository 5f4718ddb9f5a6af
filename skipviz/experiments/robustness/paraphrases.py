"""A few pairs of sentences that mean the same, and how a user's own are read."""

from __future__ import annotations

from skipviz.errors import InputError

PAIRS: tuple[tuple[str, str], ...] = (
    (
        "The committee postponed the meeting because of the storm.",
        "Because of the storm, the meeting was postponed by the committee.",
    ),
    (
        "She gave her brother the old bicycle last summer.",
        "Last summer she gave the old bicycle to her brother.",
    ),
    (
        "It is likely that the price of bread will rise next year.",
        "The price of bread will probably rise next year.",
    ),
    (
        "He was so tired that he fell asleep on the train.",
        "He fell asleep on the train, since he was very tired.",
    ),
    (
        "Nobody in the village remembered when the bridge had been built.",
        "When the bridge had been built, no one in the village could remember.",
    ),
    (
        "If you heat ice, it melts.",
        "Ice melts if you heat it.",
    ),
    (
        "The museum, which opened in 1912, attracts many visitors.",
        "The museum attracts many visitors. It opened in 1912.",
    ),
    (
        "What surprised the doctor was how quickly the patient recovered.",
        "The doctor was surprised by how quickly the patient recovered.",
    ),
    (
        "Write a function that returns the sum of a list of numbers.",
        "Please write me a function returning the sum of all numbers in a list.",
    ),
    (
        "There are fewer birds in the valley than there used to be.",
        "The valley used to have more birds than it does now.",
    ),
    (
        "Although it rained all day, the children played outside.",
        "The children played outside even though it rained all day.",
    ),
    (
        "The company sold its factory in Ohio for nine million dollars.",
        "For nine million dollars, the company's factory in Ohio was sold.",
    ),
)
MOST_PAIRS = 50
"""Pairs that are run at once."""
MOST_CHARACTERS = 600
"""Characters of one text of a pair."""
MARK = "|"


def pair_lines(pairs: tuple[tuple[str, str], ...] = PAIRS) -> str:
    """Return pairs as a user would write them: one per line, separated by ``|``."""
    return "\n".join(f"{first} {MARK} {second}" for first, second in pairs)


def read_pairs(text: str) -> list[tuple[str, str]]:
    """Return the pairs in a text: one per line, its two ways of saying it separated by ``|``.

    Raises
    ------
    ValueError
        If a line is not a pair, a text is too long, or there are none or too many.
    """
    pairs = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        parts = [part.strip() for part in line.split(MARK)]
        if len(parts) != 2 or not all(parts):
            raise InputError(
                f"Line {number} is not a pair. Write one way of saying it, then {MARK}, then the "
                "other."
            )
        if max(map(len, parts)) > MOST_CHARACTERS:
            raise InputError(
                f"Line {number} is too long; each side has at most {MOST_CHARACTERS} letters."
            )
        pairs.append((parts[0], parts[1]))
    if not 1 <= len(pairs) <= MOST_PAIRS:
        raise InputError(f"There are {len(pairs)} pairs; give 1 to {MOST_PAIRS}, one per line.")
    return pairs
