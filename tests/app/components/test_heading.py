from __future__ import annotations

import ast
from pathlib import Path

import skipviz.app.views
from skipviz.app.main import PAGES
from skipviz.readings.glossary import GLOSSARY

VIEWS = Path(skipviz.app.views.__file__).parent


def test_every_page_has_a_heading_with_terms_of_the_glossary() -> None:
    for page in PAGES.values():
        file = VIEWS / f"{page}_page.py"
        tree = ast.parse(
            (file if file.exists() else VIEWS / f"{page}_page/__init__.py").read_text()
        )
        calls = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "heading"
        ]
        assert len(calls) == 1, page
        title, *terms = (ast.literal_eval(argument) for argument in calls[0].args)
        assert title.endswith("?")
        assert terms
        assert set(terms) <= set(GLOSSARY), page


def test_every_page_file_is_a_page() -> None:
    files = {path.stem for path in VIEWS.glob("*_page*")}
    assert files == {f"{page}_page" for page in PAGES.values()}
