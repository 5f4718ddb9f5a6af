"""Pages on a model that reads a text as a whole: its class is shown, and what does not apply."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from skipviz.app.jobs import Request
from tests.app.pages import PATIENCE

TEXTS = ("Nobody knows: 42.", "The lazy dog sleeps, and the fox jumps over it.")


def of_an_encoder(view: str, texts: tuple[str, ...]) -> None:
    """The script of a page after texts were traced by an encoder whose classes have odd names."""
    from importlib import import_module

    import skipviz
    from skipviz.app.components.run_button import PATHS, follow, jobs
    from skipviz.app.jobs import Request
    from skipviz.app.state import state
    from tests import encoders, tiny

    if PATHS not in state().runs:
        encoder = encoders.deebert()
        encoder.config.id2label = {0: "*good* <b>", 1: "*bad* <b>", 2: "*neither* <b>"}
        model = skipviz.from_parts(encoder, tiny.tokenizer(), name="deebert")
        documents = tuple(skipviz.Document(f"text {n}", text) for n, text in enumerate(texts))
        request = Request(model="deebert", documents=documents)
        state().chosen = request
        jobs().keep(request, skipviz.trace(model, list(documents)))
        follow(PATHS, lambda: jobs().submit(request), asked=request.key, request=request)
    import_module(f"skipviz.app.views.{view}_page").page()


def opened(view: str, *texts: str) -> AppTest:
    page = AppTest.from_function(of_an_encoder, args=(view, texts)).run(timeout=PATIENCE)
    assert not page.exception, page.exception[0].message
    return page


def told(page: AppTest) -> list[str]:
    return [each.value for each in (*page.info, *page.markdown, *page.caption)]


@pytest.mark.parametrize(
    ("view", "why"),
    [
        ("what_if", "no loss that other decisions could change"),
        ("audit", "no loss by which a decision could be examined"),
        ("attribution", "no loss by which a decision could be examined"),
        ("generate", "it cannot write"),
        ("robustness", "no loss to compare with the dense model's"),
        ("cost", "prefill and decode cannot be timed"),
    ],
)
def test_pages_that_need_the_next_token_say_why_they_do_not_apply(view: str, why: str) -> None:
    page = opened(view, TEXTS[1])
    assert [each.value for each in page.info if why in each.value] == [
        f"The model reads a text as a whole and predicts no next token, so "
        f"{why if view in ('generate', 'cost') else f'there is {why}'}. Trace the text with a "
        "model that predicts one."
    ]
    assert not page.error
    assert "Times can be measured" not in " ".join(told(page))


@pytest.mark.parametrize("look_at", ["Predictions", "Attention", "Tasks"])
def test_layers_say_why_they_do_not_apply(look_at: str) -> None:
    page = opened("layers", TEXTS[1])
    page.button_group(key="layers_view").set_value(look_at).run(timeout=PATIENCE)
    assert not page.exception
    assert "predicts no next token, so" in page.info[0].value
    assert not page.button


def test_the_class_stands_where_the_loss_does() -> None:
    page = opened("paths", TEXTS[0])
    badges = [each.value for each in page.markdown if "badge" in each.value]
    assert any("not causal" in each for each in badges)
    figures = {each.label: each.value for each in page.metric}
    assert "Loss" not in figures
    assert figures["Predicted class"] in {"*good* <b>", "*bad* <b>", "*neither* <b>"}
    (said,) = [each for each in told(page) if each.startswith("The predicted class is")]
    assert "\\*" in said  # a name is no Markdown
    assert "\\<b\\>" in said
    assert not page.dataframe


def test_of_several_texts_each_has_its_class() -> None:
    page = opened("paths", *TEXTS)
    table = page.dataframe[0].value
    assert table["text"].tolist() == ["text 0", "text 1"]
    assert table["probability"].between(1 / 3, 1).all()
    assert "Predicted classes of 2 texts" in " ".join(told(page))


def test_no_batch_is_offered_where_texts_are_run_one_by_one() -> None:
    page = opened("robustness", TEXTS[1])
    assert "Change the batch" not in [each.label for each in page.button]
    assert "Change the context" in [each.label for each in page.button]
    said = [each.value for each in page.info if "no batch to compare with" in each.value]
    assert said == [
        "Texts are run one by one in deebert, whose decisions may depend on the batch, so there is "
        "no batch to compare with. The check-up tries one (SKV005)."
    ]


def test_a_page_that_writes_with_another_model_says_with_which_and_why() -> None:
    page = opened("generate", TEXTS[1])
    state = page.session_state["skipviz"]
    state.chosen = None  # as where the side bar shows a stored trace
    page.run(timeout=PATIENCE)
    assert page.button(key="write")
    assert [each.value for each in page.info] == [
        "This page writes with smollm2-gated, since the side bar names no model. The text shown "
        "above was traced with deebert, which predicts no next token and cannot write. To write "
        "with another model, choose a text and a model there."
    ]
    state.chosen = Request(model="smollm2-exit", documents=())
    page.run(timeout=PATIENCE)
    (said,) = [each.value for each in page.info]
    assert said.startswith("This page writes with smollm2-exit, as the side bar says.")
    state.chosen = Request(model="", documents=())
    page.run(timeout=PATIENCE)
    assert "Name its folder there" in page.info[0].value
