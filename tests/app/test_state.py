from __future__ import annotations

from pathlib import Path

import skipviz.app

APP = Path(skipviz.app.__file__).parent


def test_the_session_is_remembered_in_one_place() -> None:
    users = {path.name for path in APP.rglob("*.py") if "session_state" in path.read_text("utf-8")}
    assert users == {"state.py"}
