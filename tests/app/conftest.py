from __future__ import annotations

from importlib import import_module

import pytest

from skipviz.app.frame.warm_up import IMPORTED, WarmUp


@pytest.fixture(autouse=True)
def _no_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of pages import what they need, and load no model that they do not."""
    import_module(IMPORTED[0])  # the side bar is drawn where it is imported
    monkeypatch.setattr(WarmUp, "begin", lambda _: None)
