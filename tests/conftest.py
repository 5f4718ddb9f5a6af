from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: no test asks the network

import gc
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from transformers import LlamaForCausalLM

import skipviz
from tests import tiny

BROWSER = Path(__file__).parent / "browser"
BROWSER_SECONDS = 240

# On a loaded machine an example takes as long as it takes.
hypothesis.settings.register_profile("skipviz", deadline=None)
hypothesis.settings.load_profile("skipviz")


def pytest_collection_finish() -> None:
    """Let no collection of garbage look at the modules imported, which takes a second each time."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of pages; they run a sample model, and one that hangs is to fail by name."""
    for item in items:
        if BROWSER in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.model)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(BROWSER_SECONDS))


@pytest.fixture(autouse=True)
def _threads() -> None:
    torch.set_num_threads(1)  # tiny models lose more to waking a second one than they gain


@pytest.fixture
def tiny_tokenizer() -> Any:
    return tiny.tokenizer()


@pytest.fixture
def tiny_backbone() -> LlamaForCausalLM:
    return tiny.backbone(seed=0)


@pytest.fixture
def tiny_gated() -> LlamaForCausalLM:
    return tiny.gated(seed=0)


@pytest.fixture
def tiny_model_folder(tmp_path: Path, tiny_backbone: LlamaForCausalLM, tiny_tokenizer: Any) -> Path:
    folder = tmp_path / "tiny-dense"
    tiny_backbone.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tokenizer(tiny_tokenizer: Any) -> Any:
    return tiny_tokenizer


@pytest.fixture
def dense(tiny_backbone: LlamaForCausalLM, tiny_tokenizer: Any) -> skipviz.SkipModel:
    return skipviz.from_parts(tiny_backbone, tiny_tokenizer, name="tiny-dense")


@pytest.fixture
def gated(tiny_gated: LlamaForCausalLM, tiny_tokenizer: Any) -> skipviz.SkipModel:
    return skipviz.from_parts(tiny_gated, tiny_tokenizer, name="tiny-gated")


@pytest.fixture
def dense_folder(tiny_model_folder: Path) -> Path:
    return tiny_model_folder
