"""The example of each public name, run as it is written."""

from __future__ import annotations

import doctest
import inspect
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from numpydoc.docscrape import NumpyDocString

import skipviz
from tests import published, tiny
from tests.folders import write_gated

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.REPORT_NDIFF


def needs_an_example(value: Any) -> bool:
    """Return whether it is a function, or a class that is no error."""
    callable_ = inspect.isfunction(value) or inspect.isclass(value)
    return callable_ and not (inspect.isclass(value) and issubclass(value, BaseException))


NAMES = [name for name in skipviz.__all__ if needs_an_example(getattr(skipviz, name))]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What examples may use without making it: a model, its trace, its folder, a place to write."""
    tmp = tmp_path_factory.mktemp("examples")
    dense = tmp / "tiny-dense"
    tiny.backbone(seed=0).save_pretrained(dense)
    tiny.tokenizer().save_pretrained(dense)
    folder = write_gated(tmp / "tiny-gated", backbone=dense)
    settings = json.loads((folder / "skipviz.json").read_text(encoding="utf-8"))
    settings["guards"] = {"0.5": 0.0}
    (folder / "skipviz.json").write_text(json.dumps(settings), encoding="utf-8")
    model = skipviz.load(folder)
    trace = skipviz.trace(model, tiny.TEXT)
    return {
        **{"skipviz": skipviz, "model": model, "trace": trace, "folder": folder, "tmp": tmp},
        **{"routed": published.routed(), "tokenizer": tiny.tokenizer()},
    }


def test_what_needs_an_example_is_all_but_errors_and_modules() -> None:
    rest = [getattr(skipviz, name) for name in skipviz.__all__ if name not in NAMES]
    assert all(
        isinstance(each, ModuleType | str) or issubclass(each, skipviz.SkipvizError)
        for each in rest
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_public_name_is_true(name: str, names: dict[str, Any]) -> None:
    lines = NumpyDocString(inspect.getdoc(getattr(skipviz, name)) or "")["Examples"]
    example = doctest.DocTestParser().get_doctest(
        "\n".join(lines), dict(names), name, str(Path(__file__).name), 0
    )
    assert example.examples, f"{name} has no example"
    assert not [each for each in example.examples if each.options.get(doctest.SKIP)]
    said: list[str] = []
    found = doctest.DocTestRunner(optionflags=OPTIONS, verbose=False).run(example, out=said.append)
    assert found.failed == 0, "".join(said)
