"""A check-up as a page of its own."""

from __future__ import annotations

from collections import Counter
from html import escape

from skipviz.analysis.findings import OUTCOMES, SIGNS, CheckUp, Finding

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
.issue b { color: #b3261e } .tip b { color: #8a5a00 } .passed b { color: #1b6e3c }
article { border-top: 1px solid #8884; padding: .7rem 0 }
h2 { font-size: 1rem; margin: 0 } p { margin: .2rem 0 } .code { opacity: .7; font-weight: normal }
@media (prefers-color-scheme: dark) { body { background: #14171c; color: #e6e6e6 }
  .issue b { color: #ff8a80 } .tip b { color: #ffcc80 } .passed b { color: #80d8a0 } }
"""


def checkup_html(found: CheckUp) -> str:
    """Return a check-up as one HTML page without scripts, issues first.

    Parameters
    ----------
    found
        What ``skipviz.check`` returned.
    """
    counts = Counter(each.outcome for each in found.findings)
    summary = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    title = f"Check-up of {escape(found.subject)}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1><p>{summary}.</p>"
        + "".join(map(_article, found.ordered))
        + "</body></html>"
    )


def _article(finding: Finding) -> str:
    lines = [
        f"<h2><b>{SIGNS.get(finding.outcome, '')} {escape(finding.outcome)}</b> "
        f'{escape(finding.said)} <span class="code">{finding.code}</span></h2>',
        f"<p><strong>{escape(finding.figure)}</strong></p>" if finding.figure else "",
        f"<p>{escape(finding.evidence)}</p>",
        f"<p>{escape(finding.matters)} {escape(finding.advice)}</p>" if finding.advice else "",
    ]
    kind = finding.outcome.replace(" ", "-")
    return f'<article class="{kind}">{"".join(lines)}</article>'
