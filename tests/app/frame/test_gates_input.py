"""A folder whose gates skipviz does not know is described in the side bar, and traced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from streamlit.testing.v1 import AppTest
from torch import nn

import skipviz
from skipviz.app.jobs import Jobs, Request, kept_result
from skipviz.families.described.spec import gate_specs_in
from tests import published, tiny
from tests.app.pages import PATIENCE, framed, until

GATES = (
    "module: model.layers.{layer}.router\nactivation: sigmoid\nthreshold: 0.5\n"
    "skip_path: identity\nkv: computed\ncomputed_anyway: true\n"
)
TEXTS = (skipviz.Document("mine", tiny.TEXT),)


class _RoutedConfig(transformers.LlamaConfig):
    model_type = "skipviz_tests_routed"


class _RoutedForCausalLM(transformers.LlamaForCausalLM):
    """A package of a user's own registers such a class, so that no code comes with the folder."""

    config_class = _RoutedConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        layers = [
            published.RoutedLayer(config, number) for number in range(config.num_hidden_layers)
        ]
        self.model.layers = nn.ModuleList(layers)
        self.post_init()


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    transformers.AutoConfig.register(_RoutedConfig.model_type, _RoutedConfig, exist_ok=True)
    transformers.AutoModelForCausalLM.register(_RoutedConfig, _RoutedForCausalLM, exist_ok=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = tiny.backbone(seed=0).config.to_dict()
    torch.manual_seed(0)
    model = _RoutedForCausalLM(_RoutedConfig(**{**config, "model_type": _RoutedConfig.model_type}))
    made = tmp_path / "routed"
    model.save_pretrained(made)
    tiny.tokenizer().save_pretrained(made)
    return made


@pytest.fixture
def worker() -> Iterator[Jobs]:
    made = Jobs(present=lambda _: True)
    yield made
    made.close()


def test_a_result_depends_on_the_description(folder: Path, worker: Jobs) -> None:
    request = Request(model=str(folder), documents=TEXTS, gates=GATES)
    turned = replace(request, gates=f"{GATES}executes: low\n")
    assert len({request.key, turned.key, replace(request, gates=None).key}) == 3
    first, second = (worker.submit(each).future.result(PATIENCE) for each in (request, turned))
    ran, other = (each.matrix("exec_count") > 0 for each in (first, second))
    assert np.array_equal(ran[:, 0], ~other[:, 0])
    own = skipviz.load(folder, gates=gate_specs_in(GATES, name="gates"))
    skipviz.trace(own, tiny.TEXT)
    noted = published.truth_of(own.model)
    wanted = np.stack([noted[layer, "block"][0].numpy() for layer in range(tiny.LAYERS)], axis=1)
    assert np.array_equal(ran, wanted)
    assert 0 < ran.mean() < 1


def test_what_does_not_fit_is_said(folder: Path, worker: Jobs) -> None:
    for gates, message in (
        ("module: [", "The description of gates cannot be read as YAML"),
        ("module: model.layers.{layer}.gate", "names no module"),
        ("rule: gt", "module is missing"),
    ):
        job = worker.submit(Request(model=str(folder), documents=TEXTS, gates=gates))
        with pytest.raises(skipviz.InputError, match=message):
            job.future.result(PATIENCE)


def areas(page: AppTest) -> list[Any]:
    return [each for each in page.text_area if str(each.key).startswith("gates of ")]


@pytest.mark.slow
def test_gates_are_proposed_and_traced_by(folder: Path) -> None:
    page = AppTest.from_function(framed, args=("paths_page",)).run(timeout=PATIENCE)
    page.selectbox(key="model").set_value("A folder on this machine")
    page.run(timeout=PATIENCE)
    page.text_input(key="folder").set_value(str(folder))
    page.text_area(key="pasted").set_value(tiny.TEXT)
    page.run(timeout=PATIENCE)
    assert not areas(page)
    page.button(key="run").click()
    until(page, lambda: areas(page))
    assert "looks like a skipping model" in page.error[0].value
    page.button(key="propose gates").click()
    until(page, lambda: areas(page)[0].value)
    assert "agreement 100%" in areas(page)[0].value
    page.button(key="run").click().run(timeout=PATIENCE)
    runs = page.session_state["skipviz"].runs
    until(page, lambda: not runs["paths"].under_way)
    assert not page.run(timeout=PATIENCE).error
    assert kept_result(runs["paths"].job).run["family"].item() == "described"
    areas(page)[0].set_value("module: nowhere")
    page.run(timeout=PATIENCE)
    assert not page.error
    page.button(key="run").click()
    until(page, lambda: page.error)
    assert "must have {layer} in it once" in page.error[0].value.replace("\\", "")
    assert areas(page)[0].value == "module: nowhere"


def robustness_of(folder: str, gates: str, text: str) -> None:
    """The script of the page after a text was traced by gates that were described."""
    import skipviz
    from skipviz.app.components.run_button import PATHS, follow, jobs
    from skipviz.app.jobs import Request
    from skipviz.app.state import state
    from skipviz.app.views.robustness_page import page

    document = skipviz.Document("mine", text)
    request = Request(model=folder, documents=(document,), gates=gates)
    if PATHS not in state().runs:
        follow(PATHS, lambda: jobs().submit(request), asked=request.key, request=request)
        state().runs[PATHS].job.future.result()
    page()


def test_no_batch_is_offered_of_a_model_that_runs_texts_one_by_one(folder: Path) -> None:
    arguments = (str(folder), GATES, tiny.TEXT)
    page = AppTest.from_function(robustness_of, args=arguments).run(timeout=PATIENCE)
    assert not page.exception
    labels = [each.label for each in page.button]
    assert "Change the context" in labels
    assert "Change the batch" not in labels
    assert any("there is no batch to compare with" in each.value for each in page.info)
