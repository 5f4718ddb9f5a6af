"""What is downloaded of a trace shows what the page shows."""

from __future__ import annotations

import re

import pytest

from skipviz.app.components.canvas_payload import lens_payload
from skipviz.app.components.downloads import trace_figure
from skipviz.plots.lenses.traced import traced_lenses
from tests.synthetic import make_trace


def test_a_downloaded_text_is_on_the_scale_that_the_canvas_opens_with() -> None:
    trace = make_trace(tokens=200)
    layers_used, *_ = traced_lenses(trace)
    sent = lens_payload(trace, layers_used, key="layers used")["lens"]
    page = trace_figure(trace, 200).decode()
    low, high = re.findall(r"layers used: ([\d.]+).*?</span>([\d.]+)", page)[0]
    assert [float(low), float(high)] == pytest.approx(sent["stretched"], rel=5e-3)
    assert sent["stretched"] != layers_used.ends
