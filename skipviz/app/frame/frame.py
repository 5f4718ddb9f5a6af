"""What stands around every page: the side bar, the run of the text, and the canvas."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import (
    PATHS,
    follow,
    jobs,
    offer_all,
    outcome,
    traced_now,
    wait_shortly,
)
from skipviz.app.frame.changed import what_changed
from skipviz.app.frame.kept_session import offer_session_file
from skipviz.app.frame.opening import is_sample, open_at_start, sample
from skipviz.app.frame.recent_runs import bring_back, offer_recent_runs, recent_runs
from skipviz.app.frame.running import show_elsewhere
from skipviz.app.frame.text_canvas import text_canvas
from skipviz.app.frame.tour import offer_tour, page_is_shown, show_tour
from skipviz.app.frame.warm_up import warm_up
from skipviz.app.sessions import is_served, this_visitor
from skipviz.app.state import state
from skipviz.readings.paths import shallow_reading, shallowest_token
from skipviz.traces import Trace

LESS_ROOM = """<style>
.stMainBlockContainer { padding: 3.8rem 2.5rem 4rem; }
@media (max-width: 640px) { .stMainBlockContainer { padding: 3.8rem 1rem 4rem; } }
.stMain .stColumn:has(.stPlotlyChart) { min-width: min(100%, 20rem); }
.stElementContainer:has(.stPlotlyChart) { box-sizing: content-box; padding-top: 1.75rem; }
.stPlotlyChart .js-plotly-plot { overflow: visible !important; }
.stPlotlyChart .modebar-container { top: -1.75rem !important; }
@media (max-width: 1100px) {
  .stMain .stColumn:has(.stPlotlyChart) { min-width: 100%; }
  .stMain .stColumn:has(.stDownloadButton) { min-width: 12rem; }
}
[data-testid="stStatusWidget"] button, [data-testid="stStatusWidget"] svg { display: none; }
[data-testid="stStatusWidgetRunningIcon"] { width: auto; }
[data-testid="stStatusWidgetRunningIcon"]::after {
  content: "Running …"; font-size: 0.8rem; white-space: nowrap;
}
.stMain *, .stSidebar *, [data-testid="stStatusWidget"], [data-testid="stStatusWidget"] * {
  animation: none !important; transition-duration: 0s !important;
}
@media (min-width: 641px) {
  [data-testid="stTopNavLink"] { padding-inline: 0.25rem; }
  [data-testid="stTopNavLink"] p { font-size: 0.78rem; }
  [data-testid="stTopNav"], [data-testid="stTopNav"] * { gap: 0; }
  [data-testid="stTopNavLinkContainer"], .rc-overflow-item > div { margin: 0; }
}
.stButtonGroup [data-selected="true"] p { color: light-dark(#0e1216, #e8ecef); }
</style>"""
"""Streamlit leaves more room around a page than a canvas can spare, cuts figures and names of
downloads beside each other where the window is narrow, lays the buttons of a figure over its title,
and writes what is chosen too faintly. It hides pages whose names would fit, and its button to stop
leaves a run of a model going. What it moves while a model runs takes time from that run, where a
browser draws without a GPU; what is out of date it dims half a second later, and that delay stays:
without it all that is drawn again would flash."""
OPENING_SECONDS = 0.8
"""After which a page is drawn at the latest, once its canvas was sent."""
LOST = (
    "The address of this page names a trace that is not known here: the server was started anew, "
    "or it was made elsewhere. Below is a sample. Trace the text again to see it."
)


def draw_in_frame(page: Callable[[], None], go_to: Callable[[str], None]) -> None:
    """Draw the frame, and a page in it.

    When a visitor comes, the canvas stands alone at first: what is around it keeps a browser busy
    for longer than the canvas does.

    Parameters
    ----------
    page
        Draws the page.
    go_to
        Opens the page of a name, if it is not open.
    """
    st.html(LESS_ROOM)
    state().waits_shown.clear()
    state().offered.clear()
    if (named := open_at_start()) is not None:
        bring_back(named)
    side_bar = st.sidebar.container()
    _side_bar(side_bar)
    _text(go_to)
    place = st.container()
    if _comes_first():
        _then_the_page()
        state().opened = True
        return
    try:
        page()
    finally:
        warm_up().begin()  # last, so that the first page does not share the processor with it
    state().picked = None  # a click that this page takes no notice of counts on no other
    with place:
        offer_all()
    with st.sidebar:
        show_elsewhere()
        shown = state().runs[PATHS].finished
        offer_recent_runs(None if shown is None else shown.request)
        offer_session_file()
        offer_tour(to_the_new=False)


def _side_bar(place: st.delta_generator.DeltaGenerator) -> None:
    """Offer text and model, once what reads models is imported; begin a run that was asked for."""
    with place:
        st.title("skipviz")
        st.caption("Which layers did each token use, and why?")
        if _comes_first():
            return
        if not warm_up().has_imported:
            _wait_for_models()
            return
        from skipviz.app.frame.inputs import choose, fill_in

        if (shown := state().to_fill_in) is not None:
            fill_in(shown)
            state().to_fill_in = None
        request = choose()
    if request is not None:
        recent_runs().add(this_visitor(), request)
        follow(PATHS, lambda: jobs().submit(request), asked=request.key, request=request)
        state().just_asked = True


def _comes_first() -> bool:
    """Say whether the canvas is drawn alone, as at the first run of a session."""
    return not state().opened and is_served()


@st.fragment(run_every=OPENING_SECONDS)
def _then_the_page() -> None:
    """Have the page drawn once the canvas is; it mostly says so earlier, with what is selected."""
    if state().opened:
        st.rerun()


@st.fragment(run_every=0.3)
def _wait_for_models() -> None:
    if warm_up().has_imported:
        st.rerun()
    st.caption("Getting ready to run models …")


def _introduce(trace: Trace) -> None:
    """Say what the sample shows, and how to go on."""
    said = plain(shallow_reading(trace, shallowest_token(trace)))
    st.markdown(
        f"**A sample, traced already.** {said} **Try it on your text**: enter one in the side bar "
        "and press **Trace the text**."
    )


def _say_who_used_least(trace: Trace) -> None:
    if len(trace) and (said := shallow_reading(trace, shallowest_token(trace))):
        st.markdown(plain(said))


def _text(go_to: Callable[[str], None]) -> None:
    """Show the text, how far its run is, and what differs from what the side bar asks for."""
    with st.container():  # whatever is said, the canvas keeps its place, and is not mounted anew
        _say_what_is_shown(go_to)
    shown = state().runs[PATHS].finished
    if shown is not None and (known := traced_now()) is not None:
        text_canvas(*known, address=shown.request.address)
        page_is_shown()


def _say_what_is_shown(go_to: Callable[[str], None]) -> None:
    run, meanwhile = state().runs[PATHS], st.empty()
    if run.under_way and run.finished is not None and is_sample(run.finished.request):
        meanwhile.caption("Your text is being traced. Below is the sample until then.")
    if state().just_asked:
        state().just_asked = False
        wait_shortly(PATHS)
    run = state().runs[PATHS]
    if not run.under_way:
        meanwhile.empty()
    if state().lost_address and is_sample(run.request):
        st.warning(LOST)
    outcome(PATHS, asked=run.asked)
    shown = run.finished
    if shown is None:
        return
    if state().tour is not None:
        show_tour(go_to)
    elif is_sample(shown.request):
        if run.under_way:
            return
        left, right = st.columns([4, 1], vertical_alignment="center")
        with left:
            _introduce(sample()[1])
        with right:
            offer_tour(to_the_new=True)
    elif shown is not run:
        st.caption("Below is what was traced before.")
    elif (known := traced_now()) is not None:
        _say_who_used_least(known[1])
    if (changed := what_changed(shown.request, state().chosen)) and not run.under_way:
        st.caption(plain(changed))
