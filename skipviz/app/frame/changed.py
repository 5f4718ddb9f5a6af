"""Whether the side bar asks for something else than what is shown."""

from __future__ import annotations

from skipviz.app.frame.opening import is_sample
from skipviz.app.jobs import Request


def what_changed(shown: Request, chosen: Request | None) -> str | None:
    """Return a sentence that says what the side bar has otherwise, or None.

    It need not have been changed since: an address, or a run taken up from another page, leaves the
    side bar as it is.

    Parameters
    ----------
    shown
        What is shown.
    chosen
        What the side bar asks for; a text is compared where one is given.
    """
    if chosen is None or is_sample(shown):
        return None
    texts = [document.text for document in chosen.documents]
    differs = {
        "text": bool(texts) and texts != [document.text for document in shown.documents],
        "model": chosen.model != shown.model,
        "policy": None not in (chosen.policy, shown.policy) and chosen.policy != shown.policy,
        "budget": None not in (chosen.budget, shown.budget) and chosen.budget != shown.budget,
    }
    names = [f"another {name}" for name, is_other in differs.items() if is_other]
    if not names:
        return None
    *first, last = names
    parts = f"{', '.join(first)} and {last}" if first else last
    return f"The side bar has {parts} than what is shown. Trace the text to see that."
