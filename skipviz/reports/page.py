"""A report as HTML: sections in, one page out. All text is escaped here, and nowhere else."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from skipviz.plots.style.labels import html_text, token_label
from skipviz.reports.sections import Drawing, Section, Table

ROWS_SHOWN = 12
"""Rows of a table that a report shows."""
LONGEST_CELL = 300
"""Characters of a cell that a report shows."""
_NOT_SET = '<span class="unknown">unknown or not set</span>'


def whole_page(
    *,
    title: str,
    subject: str,
    answer: Sequence[str],
    figures: Sequence[tuple[str, str]],
    sections: Sequence[Section],
    inserted: Mapping[str, str],
    end: str,
    zipped: str | None,
) -> str:
    """Return a page that needs no other file.

    Parameters
    ----------
    title, subject
        What the page answers, and of what.
    answer
        Its answer, in paragraphs; two asterisks mark what is strong, backquotes what is code.
    figures
        Names and values that stand below the answer.
    sections
        The parts, in order.
    inserted
        HTML that stands in sections before their figures, by the section's name.
    end
        HTML that stands at the end.
    zipped
        The name of the file that holds all rows of the tables; None if there is none.
    """
    entries = "".join(
        f'<li><a href="#{each.name}">{html_text(each.title)}</a></li>' for each in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:\">"
        f"<title>{html_text(title)}</title><style>{asset('report.css')}</style>"
        f'</head><body><header><h1>{html_text(title)}</h1><p class="subject">'
        f"{html_text(subject)}</p></header><main>"
        f'<section id="answer" aria-label="Answer">{_paragraphs(answer, "answer")}'
        f"{key_numbers(figures)}</section>"
        f'<nav aria-label="Contents"><ul>{entries}<li><a href="#provenance">Provenance and '
        "citation</a></li></ul></nav>"
        + "".join(_section(each, inserted.get(each.name, ""), zipped) for each in sections)
        + f"{end}</main><script>{get_plotlyjs()}</script><script>{asset('report.js')}</script>"
        "</body></html>\n"
    )


def key_numbers(figures: Sequence[tuple[str, str]]) -> str:
    """Return names and values that stand side by side, as HTML."""
    numbers = "".join(
        f"<div><dt>{html_text(name)}</dt><dd>{html_text(value)}</dd></div>"
        for name, value in figures
    )
    return f'<dl class="numbers">{numbers}</dl>'


def prose(text: str) -> str:
    """Return a sentence of the readings as HTML: strong and code are marked, all else is text."""
    pieces = []
    for place, piece in enumerate(text.split("`")):
        escaped = html_text(piece)
        marked = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escaped)
        pieces.append(f"<code>{escaped}</code>" if place % 2 else marked)
    return "".join(pieces)


def rows_of(pairs: Sequence[tuple[str, Any]], *, caption: str) -> str:
    """Return names and values as a table of two columns; None is unknown, or was not set."""
    rows = "".join(
        f'<tr><th scope="row">{html_text(name)}</th>'
        f"<td>{_NOT_SET if value is None else _cell(value)}</td></tr>"
        for name, value in pairs
    )
    return (
        f'<div class="scroll" tabindex="0"><table class="facts"><caption>{html_text(caption)}'
        f"</caption><tbody>{rows}</tbody></table></div>"
    )


def inline_json(value: str) -> str:
    """Return JSON for a script element, which no text in it can end."""
    return value.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def asset(name: str) -> str:
    """Return a file that lies beside the code."""
    return (files("skipviz.reports") / "assets" / name).read_text(encoding="utf-8")


def _section(section: Section, inserted: str, zipped: str | None) -> str:
    drawn = "".join(map(_figure, section.drawings))
    tables = "".join(_table(each, zipped) for each in section.tables)
    caveat = f'<p class="caveat">{prose(section.caveat)}</p>' if section.caveat else ""
    return (
        f'<section id="{section.name}"><h2>{html_text(section.title)}</h2>'
        f"{_paragraphs(section.answer, 'reading')}{inserted}"
        f'<div class="figures">{drawn}</div>{tables}{caveat}</section>'
    )


def _paragraphs(texts: Sequence[str], kind: str) -> str:
    return "".join(f'<p class="{kind}">{prose(text)}</p>' for text in texts if text)


def _figure(drawing: Drawing) -> str:
    seen = html.escape(re.sub(r"[*`]", "", drawing.seen))
    name = html.escape(_file_name(drawing.figure))
    height = drawing.figure.layout.height or 400
    saved = "".join(
        f'<button type="button" data-save="{kind}" aria-label="Save this figure as '
        f'{kind.upper()}">{kind.upper()}</button>'
        for kind in ("svg", "png")
    )
    return (
        f'<figure><div class="plot" role="img" aria-label="{seen}" data-name="{name}" '
        f'style="height:{height:g}px"></div>'
        f'<script type="application/json">{inline_json(drawing.figure.to_json())}</script>'
        f'<figcaption class="save">Save as {saved}</figcaption></figure>'
    )


def _file_name(figure: go.Figure) -> str:
    title = re.sub(r"&\w+;|<[^>]*>", " ", figure.layout.title.text or "figure")
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60]


def _table(table: Table, zipped: str | None) -> str:
    frame = table.frame if table.shown is None else table.shown
    head = frame.head(ROWS_SHOWN)
    names = "".join(f'<th scope="col">{html_text(name)}</th>' for name in head.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{_cell(value, name)}</td>" for name, value in row.items()) + "</tr>"
        for row in head.iter_rows(named=True)
    )
    first = f"The first {head.height:,} of" if head.height < frame.height else "All"
    where = "" if zipped is None else f" All columns and rows are in {zipped}, as {table.name}.csv."
    return (
        f'<details><summary>{html_text(table.title)}</summary><div class="scroll" tabindex="0">'
        f"<table><caption>{html_text(f'{first} {frame.height:,} rows.{where}')}</caption>"
        f"<thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _cell(value: Any, column: str = "") -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return '<span class="unknown">unknown</span>'
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str) and column == "text":  # white space is to be seen
        return token_label(value, longest=LONGEST_CELL)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return html_text(text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…")
