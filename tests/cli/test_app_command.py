from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import free_port, wait_until_healthy

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_page_opens_with_the_projects_settings(tmp_path: Path) -> None:
    # From elsewhere, where there is no app.py and no .streamlit.
    port, log = free_port(), tmp_path / "server.log"
    code = "from skipviz.cli import main; main()"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "app", "--port", str(port)],
            cwd=tmp_path,
            env={"STREAMLIT_SERVER_HEADLESS": "true", "HOME": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_healthy(process, f"http://127.0.0.1:{port}", log)
    finally:
        process.terminate()
        process.wait(timeout=20)
    said = log.read_text()
    assert f"URL: http://127.0.0.1:{port}" in said
    assert "Network URL" not in said


def test_an_installed_page_has_the_settings_of_the_repository() -> None:
    packaged = ROOT / "skipviz" / "app" / "assets" / "config.toml"
    assert packaged.read_bytes() == (ROOT / ".streamlit" / "config.toml").read_bytes()
