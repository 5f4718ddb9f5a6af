from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import skipviz
from skipviz.errors import ModelError
from skipviz.families.gated.family import Gated
from skipviz.folders import CONFIG, WEIGHTS
from tests import tiny
from tests.folders import write_gated


@pytest.fixture
def model(tmp_path: Path, tiny_model_folder: Path) -> Path:
    return write_gated(tmp_path / "tiny-gated", backbone=tiny_model_folder)


def edit(path: Path, **fields: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **fields}), encoding="utf-8")


def test_a_gated_folder_decides_as_the_model_it_was_written_from(
    model: Path, gated: skipviz.SkipModel
) -> None:
    loaded = skipviz.load(model)
    assert (loaded.budget, loaded.policy, loaded.dtype) == (0.8, "learned", "float32")
    found, expected = (skipviz.trace(each, tiny.TEXT) for each in (loaded, gated))
    assert found.matrix("score").tobytes() == expected.matrix("score").tobytes()
    assert 0 < found.matrix("exec_count").mean() < 1


def test_a_gated_folder_loads_in_bfloat16(model: Path) -> None:
    loaded = skipviz.load(model, dtype="bfloat16")
    assert loaded.dtype == "bfloat16"
    assert loaded.weights_sha256 == skipviz.load(model).weights_sha256


def test_a_dense_folder_has_no_sites(tiny_model_folder: Path) -> None:
    loaded = skipviz.load(tiny_model_folder)
    assert (loaded.budget, loaded.policy) == (None, "dense")
    assert skipviz.trace(loaded, tiny.TEXT).sites.height == 0


def test_the_budget_sets_the_threshold(model: Path) -> None:
    loaded = skipviz.load(model, budget=0.6)
    assert loaded.budget == 0.6
    assert (skipviz.trace(loaded, tiny.TEXT).matrix("threshold") == 0.5).all()


def test_a_budget_that_is_not_calibrated_is_refused(model: Path, tiny_model_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"budget=0\.7 is not calibrated.*there are 0\.8, 0\.6"):
        skipviz.load(model, budget=0.7)
    with pytest.raises(ValueError, match="which has no gates; leave it out"):
        skipviz.load(tiny_model_folder, budget=0.8)


def test_loading_shows_no_bars_and_leaves_them_as_they_were(
    model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    logging.enable_progress_bar()
    skipviz.load(model)
    assert "Loading weights" not in capfd.readouterr().err
    assert logging.is_progress_bar_enabled()


def test_an_unknown_type_is_refused(tiny_model_folder: Path) -> None:
    with pytest.raises(ValueError, match="dtype='float8' is not one of float32, bfloat16, float16"):
        skipviz.load(tiny_model_folder, dtype="float8")


def test_other_formats_than_safetensors_are_never_read(tiny_model_folder: Path) -> None:
    (tiny_model_folder / "model.safetensors").unlink()
    torch.save(tiny.backbone(seed=0).state_dict(), tiny_model_folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"holds no \.safetensors file"):
        skipviz.load(tiny_model_folder)


@pytest.mark.parametrize("keep", [0, 5, 100, -7])
def test_broken_weights_are_a_sentence(tiny_model_folder: Path, keep: int) -> None:
    path = tiny_model_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="safetensors"):
        skipviz.load(tiny_model_folder)


def test_a_missing_configuration_is_a_sentence(tiny_model_folder: Path) -> None:
    (tiny_model_folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"There is no file .*config\.json"):
        skipviz.load(tiny_model_folder)


def test_missing_gates_are_a_sentence(model: Path) -> None:
    (model / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=r"gates\.safetensors is missing"):
        skipviz.load(model)


def test_changed_gates_are_refused(model: Path) -> None:
    content = bytearray((model / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (model / WEIGHTS).write_bytes(content)
    with pytest.raises(ModelError, match="damaged or from another training run"):
        skipviz.load(model)


def test_gates_of_another_shape_are_refused(model: Path) -> None:
    from skipviz.home import sha256_of

    save_file({"0.attn.gate.up.bias": torch.zeros(1)}, model / WEIGHTS)
    edit(model / CONFIG, gates_sha256=sha256_of(model / WEIGHTS))
    with pytest.raises(ModelError, match="holds other weights"):
        skipviz.load(model)


def test_another_backbone_is_refused(model: Path, tiny_model_folder: Path) -> None:
    tiny.backbone(seed=1).save_pretrained(tiny_model_folder)
    with pytest.raises(ModelError, match="was trained on other weights"):
        skipviz.load(model)


@pytest.mark.parametrize("content", ["", "[]", "{}", "{", '{"gates": {}}'])
def test_a_broken_description_is_a_sentence(model: Path, content: str) -> None:
    (model / CONFIG).write_text(content)
    with pytest.raises(
        ModelError, match=r"is not (readable JSON|the configuration of a model that skips)"
    ):
        skipviz.load(model)


def test_code_that_comes_with_a_model_is_not_run(tiny_model_folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (tiny_model_folder / "modeling_own.py").write_text(f"open({str(mark)!r}, 'w')\n")
    edit(
        tiny_model_folder / "config.json",
        model_type="own",
        auto_map={"AutoConfig": "modeling_own.Own", "AutoModelForCausalLM": "modeling_own.OwnLM"},
    )
    with pytest.raises(ModelError, match="brings Python code of its own, which has not been run"):
        skipviz.load(tiny_model_folder)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["nobody/nothing", "just-a-name"])
def test_a_hub_name_without_network_is_a_sentence(name: str) -> None:
    with pytest.raises(ModelError, match="could not be loaded") as caught:
        skipviz.load(name)
    assert "smollm2-gated" in str(caught.value)
    assert "needs the network" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    for name in (tmp_path / "none", Path("./none"), Path("~/none-such")):
        if name.is_absolute() or str(name).startswith("~"):
            with pytest.raises(ModelError, match="There is no folder"):
                skipviz.load(name)
    with pytest.raises(ModelError, match="There is no folder"):
        skipviz.load("./none")


class Mine(Gated):
    name = "mine"


def test_a_family_of_ones_own_is_taken_before_those_that_are_known(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel
) -> None:
    made = skipviz.from_parts(gated.model, gated.tokenizer, family=Mine())
    assert (made.family.name, made.policy) == ("mine", "learned")
    assert skipviz.trace(made, tiny.TEXT).run["family"].item() == "mine"
    with pytest.raises(ValueError, match="mine does not recognise this LlamaForCausalLM"):
        skipviz.from_parts(dense.model, dense.tokenizer, family=Mine())


def test_the_hash_is_of_every_shard(tiny_model_folder: Path, tmp_path: Path) -> None:
    def sharded(name: str, change: float) -> str:
        backbone = tiny.backbone(seed=0)
        with torch.no_grad():
            backbone.model.norm.weight += change  # the last weight in name and in order
        backbone.save_pretrained(tmp_path / name, max_shard_size="60KB")
        for file in tiny_model_folder.glob("token*"):
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
        return skipviz.load(tmp_path / name).weights_sha256

    found = [sharded("one", 0.0), sharded("same", 0.0), sharded("other", 1e-3)]
    one, other = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.safetensors")}
        for name in ("one", "other")
    )
    changed = [name for name in sorted(one) if one[name] != other[name]]
    assert len(one) > 2
    assert changed
    assert sorted(one)[0] not in changed
    assert found[0] == found[1] != found[2]
