"""Drift on the page of robustness."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from tests.app.pages import PATIENCE


def drift_of(tokens: int) -> None:
    """The script of the part of the page, for a text of so many tokens."""
    import skipviz
    from skipviz.app.jobs import Request
    from skipviz.app.views.drift import show_drift
    from tests.synthetic import make_trace

    request = Request(model="synthetic", documents=(skipviz.Document("mine", str(tokens)),))
    show_drift(request, make_trace(tokens=tokens))


@pytest.mark.parametrize(("tokens", "offered"), [(50, False), (190, False), (256, True)])
def test_what_is_too_short_is_said_and_not_offered(tokens: int, offered: bool) -> None:
    page = AppTest.from_function(drift_of, args=(tokens,)).run(timeout=PATIENCE)
    assert not page.exception
    assert (page.button != []) == offered
    told = [each.value for each in page.info]
    assert (told == []) == offered
    assert offered or "Give at least 128 tokens on each side." in told[0]
