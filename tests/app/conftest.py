from __future__ import annotations

import pytest

from skipviz.app.frame.warm_up import WarmUp


@pytest.fixture(autouse=True)
def _no_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of pages import what they need, and load no model that they do not."""
    monkeypatch.setattr(WarmUp, "begin", lambda _: None)
