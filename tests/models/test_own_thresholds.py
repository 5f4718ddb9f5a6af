from __future__ import annotations

import json
from pathlib import Path

import pytest

import skipviz
from skipviz.errors import InputError, ModelError
from skipviz.folders import model_folder, samples_folder
from skipviz.models import read_settings
from skipviz.models.own_thresholds import keep_own, own_file
from tests.folders import write_gated


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SKIPVIZ_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path: Path, dense_folder: Path) -> Path:
    return write_gated(tmp_path / "gated", backbone=dense_folder)


def keep(folder: Path, name: str, budget: float, threshold: float) -> Path:
    return keep_own(
        read_settings(folder), folder, name=name, budget=budget, threshold=threshold, realised=0.7
    )


def test_a_name_is_one_more_policy_with_budgets_of_its_own(folder: Path) -> None:
    keep(folder, "german", 0.8, 0.25)
    keep(folder, "german", 0.7, 0.5)
    keep(folder, "code", 0.8, 1.5)
    settings = read_settings(folder)
    assert settings.policies == ["learned", "german", "code"]
    assert list(settings.under("german", name="m").budgets) == [0.8, 0.7]
    for policy, budget, threshold in (
        ("german", 0.7, 0.5),
        ("code", 0.8, 1.5),
        ("learned", 0.6, 0.5),
    ):
        model = skipviz.load(folder, policy=policy, budget=budget)
        seen = skipviz.trace(model, "The quick brown fox.", statistics=False)
        assert (seen.matrix("threshold") == threshold).all()
        assert seen.run.select("policy", "budget").row(0) == (policy, budget)
        assert model.settings is not None
        assert model.settings.policies == ["learned", "german", "code"]
    assert "german" not in (folder / "skipviz.json").read_text()


def test_thresholds_of_other_weights_are_passed_over(folder: Path) -> None:
    path = keep(folder, "german", 0.8, 0.25)
    assert path == folder / "thresholds.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"weights": "0" * 64}))
    assert read_settings(folder).policies == ["learned"]
    with pytest.raises(InputError, match="'german' is not one of"):
        skipviz.load(folder, policy="german")


def test_a_sample_models_files_stay_as_they_are(home: Path) -> None:
    folder = model_folder("smollm2-gated")
    before = {path: path.read_bytes() for path in samples_folder().rglob("*.json")}
    path = keep(folder, "german", 0.8, 0.25)
    assert path.parent == home / "thresholds"
    assert read_settings(folder).policies == ["learned", "german"]
    assert before == {path: path.read_bytes() for path in samples_folder().rglob("*.json")}
    assert own_file(folder, read_settings(folder)) == path


@pytest.mark.parametrize(
    "own",
    [
        [],
        {"learned": {}},
        {"a b": {"policy": "learned", "thresholds": {"0.8": 1}, "realised": {"0.8": 1}}},
        {"a": {"policy": "other", "thresholds": {"0.8": 1}, "realised": {"0.8": 1}}},
        {"a": {"policy": "learned", "thresholds": {"0.8": None}, "realised": {"0.8": 1}}},
        {"a": {"policy": "learned", "thresholds": {"0.8": float("nan")}, "realised": {"0.8": 1}}},
        {"a": {"policy": "learned", "thresholds": {"inf": 1}, "realised": {"inf": 1}}},
        {"a": {"policy": "learned", "thresholds": {"x": 1}, "realised": {"x": 1}}},
        {"a": {"policy": "learned", "thresholds": {"0.8": 1}, "realised": {}}},
        {"a": {"policy": ["learned"], "thresholds": {"0.8": 1}, "realised": {"0.8": 1}}},
        {"a": {"policy": "learned", "thresholds": {}, "realised": {}}},
        {"a": {"policy": "learned"}},
        {"a": 3},
        None,
    ],
)
def test_a_broken_file_is_a_sentence(folder: Path, own: object) -> None:
    path = keep(folder, "german", 0.8, 0.25)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"own": own}))
    with pytest.raises(ModelError, match="Delete it, and set them again"):
        read_settings(folder)
    for text in ("", "[]", "3", "{}", "\ud800"):
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        with pytest.raises(ModelError, match="Delete it, and set them again"):
            read_settings(folder)


@pytest.mark.parametrize(
    "name", ["learned", "dense", "a b", "", "../x", "ü", "-x", "a" * 41, "a\n"]
)
def test_a_name_that_says_something_else_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(InputError, match="name"):
        keep(folder, name, 0.8, 0.25)
    assert not (folder / "thresholds.json").exists()
