from __future__ import annotations

import subprocess
import sys


def test_help_does_not_import_transformers() -> None:
    code = (
        "import sys; sys.argv = ['skipviz', '--help']\n"
        "import atexit; atexit.register(lambda: print('transformers' in sys.modules))\n"
        "from skipviz.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "evaluate" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
