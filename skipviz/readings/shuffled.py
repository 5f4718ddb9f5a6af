"""Whether it matters which tokens skip, in sentences."""

from __future__ import annotations

Interval = tuple[float, float | None, float | None]
"""A mean and the ends of its interval, None where there is none."""


def shuffled_reading(by_site: Interval, by_token: Interval) -> str:
    """Say what the choice of tokens is worth, and what the combinations of sites add.

    Parameters
    ----------
    by_site, by_token
        What shuffling site by site and token by token adds to the loss, in nats per token: the
        mean, and the ends of its 95% interval.
    """
    mean, low, high = by_token
    rest = (
        f"With sites shuffled one by one the loss changes by {by_site[0]:+z.3f}; there tokens get "
        "mixtures of decisions that the gates never chose, so it says less about the choice of "
        "tokens."
    )
    if low is None or high is None or not low < high:  # a single document has no interval
        return (
            f"Giving the decisions to other tokens, whole, changes the loss by {mean:+z.3f} nats "
            f"per token on this one text, so its size is uncertain. {rest}"
        )
    between = f"95% interval {low:z.3f} to {high:z.3f}"
    if low > 0:
        said = f"It matters which tokens skip: with others the loss is {mean:z.3f} nats higher"
    elif high < 0:
        said = (
            f"The gates choose worse than chance: with others the loss is {-mean:z.3f} nats lower"
        )
    else:
        said = (
            "It is not distinguishable from chance which tokens skip: with others the loss changes "
            f"by {mean:+z.3f} nats"
        )
    return f"{said} per token ({between}). {rest}"
