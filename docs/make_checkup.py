"""Write ``docs/checkup.md`` from the checks: ``python docs/make_checkup.py``."""

from __future__ import annotations

from pathlib import Path

from skipviz.experiments.checkup.checks import CHECKS

PAGE = Path(__file__).with_name("checkup.md")

HEAD = """# The check-up

Written by `docs/make_checkup.py` from the checks; change those, and run it again.

`skipviz check MODEL` runs a short text through a model many times and says whether what is recorded
of it is true, and whether it skips as it says. `skipviz.check(model)` is the same in Python;
`skipviz.check(trace)` and `skipviz check trace.parquet` make the checks that need no model.

Each finding is an **issue** (figures mislead or differ from what the model does), a **tip** (worth
knowing when they are read), **passed**, **not applicable**, **skipped** (it could not be checked)
or **ignored** (`--ignore CODE`). The exit code is 1 if there is an issue. `--json` and `--html`
write the findings to a file. A code keeps its meaning.
"""


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for check in CHECKS:
        alone = " Needs no model." if check.of_trace is not None else ""
        parts.append(
            f"## {check.code}: {check.title}\n\n"
            f"**Detected.** {check.detected}{alone}\n\n"
            f"**Why it matters.** {check.matters}\n\n"
            f"**What to do.** {check.advice}\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
