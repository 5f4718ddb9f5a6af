"""From a name or a folder to a model that is ready to be traced."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from skipviz.errors import InputError, ModelError
from skipviz.families import CanStore, Family, Settings, families, known_family
from skipviz.families.causal_lm import is_causal
from skipviz.families.described.family import Described, described
from skipviz.families.described.spec import GateSpec, read_gate_specs, to_fields
from skipviz.families.powers import CanGather, traits_of
from skipviz.folders import BACKBONE, CONFIG, is_folder, model_folder, sample_folders
from skipviz.models import backbone
from skipviz.models.backbone import GGUF_SHA256
from skipviz.models.folder_checks import (
    check_dense_folder,
    check_loaded,
    check_tokenizer,
    read_json,
)
from skipviz.models.handle import Runtime, SkipModel, at_limit
from skipviz.models.hashes import setup_sha256, weights_sha256
from skipviz.models.own_thresholds import with_own
from skipviz.models.progress_bars import no_bars
from skipviz.models.runtimes import with_runtime
from skipviz.models.spreading import AUTO, spread_over_cards
from skipviz.text.arguments import checked

LONGEST_PART = 255
"""Bytes between two slashes of a path, at most, on every usual file system."""
CLASSIFIES = "ForSequenceClassification"
"""In the names of models that give a class of a text."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@checked
def load(
    name: str | Path,
    *,
    budget: float | None = None,
    policy: str | None = None,
    limit: float | None = None,
    gates: GateSpec | Sequence[GateSpec] | Path | None = None,
    runtime: Runtime = "masked",
    dtype: str | torch.dtype = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> SkipModel:
    """Load a sample model, a local folder or a model of the Hugging Face hub.

    Parameters
    ----------
    name
        ``smollm2-gated``, ``smollm2-135m``, a folder, or a name on the hub.
    budget
        For a gated model, one of the budgets that its thresholds were calibrated for.
    policy
        For a model that has several, such as the rules of early exits, one of them.
    limit
        For learned gates, the guarded policy instead: the nats per token over dense that it may
        lose, one of those that the gates are guarded for.
    gates
        For a model whose gates skipviz does not know: a description of them, several, or a YAML
        file with such.
    runtime
        How decisions are carried out: ``masked`` or ``gathered``, where only what runs is computed.
    dtype
        ``float32``, in which traces are exact, or ``bfloat16`` or ``float16``, faster, in which
        some decisions flip; torch's own types are understood too.
    device
        A torch device, such as ``cpu`` or ``cuda``; or ``auto``, for a model that is larger than a
        card: its layers are spread over all cards, and those that do not fit wait in memory. Such
        a model can be traced, and keeps the policy with which it was loaded.
    trust_remote_code
        Whether Python code that comes with a model may run. Only safetensors are read either way.

    Returns
    -------
    SkipModel
        The model on its device, in eval mode, with its tokenizer.

    Raises
    ------
    ModelError
        If there is no such model, its files are missing, damaged or of another kind, or there is
        no such device.
    ValueError
        If ``dtype``, ``budget`` or ``policy`` is not one of those on offer.

    Examples
    --------
    >>> model = skipviz.load(folder, budget=0.6)  # or a name, such as "smollm2-gated"
    >>> model.policy, model.budget
    ('learned', 0.6)
    """
    if limit is not None and (budget is not None or policy is not None):
        raise InputError(
            f"limit={limit} finds a threshold of its own; leave budget and policy out beside it."
        )
    dtype = str(dtype).removeprefix("torch.")  # torch.bfloat16 is understood too
    if dtype not in DTYPES:
        raise InputError(f"dtype={dtype!r} is not one of {', '.join(DTYPES)}.")
    _check_device(device)
    _check_name(str(name))
    folder = model_folder(name)
    if (folder / CONFIG).exists():
        if gates is not None:
            raise InputError(f"{name} says itself what its gates are; leave gates out.")
        loaded = _load_skipping(
            folder, budget=budget, policy=policy, dtype=dtype, trust=trust_remote_code
        )
        loaded = replace(loaded, name=str(name))
    elif budget is not None or policy is not None:
        asked = f"budget={budget}" if policy is None else f"policy={policy!r}"
        raise InputError(f"{asked} was asked of {name}, which has no gates; leave it out.")
    else:
        loaded = _load_dense(name, dtype=dtype, trust=trust_remote_code, gates=gates)
    if limit is not None:
        loaded = at_limit(loaded, limit)
    if device != AUTO:
        loaded.model.to(device)
    made = with_runtime(loaded, runtime)
    if device == AUTO:
        spread_over_cards(made.model)
    return made


def _check_name(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ModelError(
            f"{name.encode(errors='replace').decode()} is a name that is not UTF-8, which readers "
            "of weights do not open. Rename the folder."
        ) from None
    if "\0" in name or any(len(part.encode()) > LONGEST_PART for part in name.split("/")):
        raise ModelError(
            f"{name[:60]!r} is no name of a model or a folder: a part of it has more than "
            f"{LONGEST_PART} bytes, or a character that none may have."
        )


def _check_device(device: str) -> None:
    known = ["cpu", AUTO]
    if torch.accelerator.is_available():
        kind = str(torch.accelerator.current_accelerator())
        known += [kind, *(f"{kind}:{n}" for n in range(torch.accelerator.device_count()))]
    if device not in known:
        raise ModelError(f"device={device!r} is not on this machine; there are {', '.join(known)}.")


@checked
def from_parts(
    model: Any, tokenizer: Any, *, name: str = "model", weights_sha256: str = "",
    budget: float | None = None,
    family: Family | GateSpec | Sequence[GateSpec] | None = None,
) -> SkipModel:  # fmt: skip
    """Wrap a model that is already in memory.

    Parameters
    ----------
    model, tokenizer
        A transformers causal LM and its tokenizer.
    name, weights_sha256, budget
        What the trace is to say of them.
    family
        How its gates are found, read and forced, for gates that skipviz does not know: a family,
        or a description of the gates, or several. None takes the first known family that
        recognises the model.

    Returns
    -------
    SkipModel
        The same model, named, with the family that reads its gates.

    Raises
    ------
    ModelError
        If no family recognises the model, and it looks as if it skipped.
    ValueError
        If the family does not recognise the model, or a description does not fit it.

    Examples
    --------
    >>> mine = skipviz.from_parts(model.model, model.tokenizer, name="my-model")
    >>> mine.name, mine.family.name
    ('my-model', 'gated')
    """
    check_parts(model, tokenizer)
    if family is None:
        family = known_family(model)
    elif isinstance(family, GateSpec | Sequence):
        family = described(family)
    if not family.detect(model):
        raise InputError(
            f"The family {family.name} does not recognise this {type(model).__name__}: its "
            "detect() says no. Give a model that has its gates."
        )
    return SkipModel(
        name=name,
        model=model.eval(),
        tokenizer=tokenizer,
        family=family,
        weights_sha256=weights_sha256,
        budget=budget,
        runtime="gathered" if isinstance(family, CanGather) and family.gathers(model) else "masked",
        policy="learned" if family.sites(model) and traits_of(family, model).decides else "dense",
    )


def check_parts(model: Any, tokenizer: Any) -> None:
    """Check that a model in memory and a tokenizer are such.

    Raises
    ------
    InputError
        If not.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"model is of type {type(model).__name__}; give a transformers model, or to "
            "skipviz.load the name of one."
        )
    if not callable(tokenizer):
        raise InputError(
            f"tokenizer is of type {type(tokenizer).__name__}; give the model's tokenizer, as "
            "transformers' AutoTokenizer loads it."
        )


def read_settings(folder: Path) -> Settings:
    """Read ``skipviz.json``, and the thresholds that a user set beside it.

    Raises
    ------
    ModelError
        If it is missing, is not JSON, lacks a field, or no family knows it.
    """
    path = folder / CONFIG
    if not is_folder(folder):
        raise ModelError(
            f"There is no folder {folder!s:.200}. Give a sample model or a folder of your own."
        )
    if not path.exists() and not path.is_symlink():
        raise ModelError(
            f"{folder} has no {CONFIG}, so it is not a model that skips; name another."
        )
    fields = read_json(path)
    try:
        for family in families():
            if isinstance(family, CanStore) and family.owns(fields):
                return with_own(family.settings(fields), folder)
    except ModelError:  # which says more
        raise
    except Exception as error:  # whatever a family makes of nonsense
        raise ModelError(
            f"{path} is not the configuration of a model that skips ({error}). Write the folder "
            "again with `skipviz train`, or point to another."
        ) from error
    known = ", ".join(each.name for each in families() if isinstance(each, CanStore))
    raise ModelError(
        f"{path} is not the configuration of a model that skips: no family that is installed here "
        f"knows it, and there are {known}. Install the package that its family comes from, or "
        "point to another folder."
    )


def _load_skipping(
    folder: Path, *, budget: float | None, policy: str | None, dtype: str, trust: bool
) -> SkipModel:
    settings = read_settings(folder)
    if policy is not None:
        settings = settings.under(policy, name=folder.name)
    chosen = settings.budget if budget is None else budget
    setting = settings.at(chosen, name=folder.name)
    dense = _load_dense(settings.backbone, dtype=dtype, trust=trust)
    if dense.weights_sha256 != settings.backbone_sha256:
        raise ModelError(
            f"{folder.name} was trained on other weights of {settings.backbone} than those found; "
            "its gates would mean nothing. Pull the backbone again."
        )
    settings.install(dense.model, folder)
    setting.apply(dense.model)
    parts = dense.weights_sha256 + settings.files_sha256
    made = from_parts(
        dense.model,
        dense.tokenizer,
        name=folder.name,
        weights_sha256=hashlib.sha256(parts.encode()).hexdigest(),
        budget=chosen,
    )
    return replace(
        made,
        policy=settings.policy,
        settings=settings,
        setting=setting,
        setup_sha256=dense.setup_sha256,
    )


def _load_dense(
    name: str | Path,
    *,
    dtype: str,
    trust: bool,
    gates: GateSpec | Sequence[GateSpec] | Path | None = None,
) -> SkipModel:
    """Load what has no ``skipviz.json``: a dense model, or one whose gates are known otherwise."""
    family = read_gate_specs(gates) if isinstance(gates, Path) else gates
    model, tokenizer, weights, setup = parts_of(name, dtype=dtype, trust=trust)
    made = from_parts(model, tokenizer, name=str(name), weights_sha256=weights, family=family)
    if CLASSIFIES in type(model).__name__ and traits_of(made.family, model).predicts:
        raise ModelError(
            f"{name} is a {type(model).__name__}, which gives a class of a text, and it has no "
            "exits that skipviz knows. Give a causal language model, or an encoder with the exits "
            "of DeeBERT or PABEE."
        )
    # Routers may look ahead or draw; what is asked is whether the backbone predicts at all.
    if not made.family.sites(model) and not is_causal(model):
        raise ModelError(
            f"{name} is not a causal language model: later tokens change what "
            f"{type(model).__name__} predicts for earlier ones. Give one that was trained to "
            "predict the next token."
        )
    if isinstance(made.family, Described):
        described_as = repr([to_fields(spec) for spec in made.family.specs_of(model)])
        setup = hashlib.sha256(f"{setup}\n{described_as}".encode()).hexdigest()
    return replace(made, setup_sha256=setup)


def parts_of(
    name: str | Path, *, dtype: str = "float32", trust: bool = False
) -> tuple[Any, Any, str, str]:
    """Return model, tokenizer, and SHA-256 of weights and set-up, whatever the family.

    Raises
    ------
    ModelError
        If files are missing, damaged or of another kind.
    """
    from transformers import AutoTokenizer

    folder, known_sha256 = _dense_source(name)
    try:
        with no_bars():
            model, info = _from_pretrained(folder, dtype=DTYPES[dtype], trust=trust)
    except Exception as error:  # every library below raises its own kinds
        raise ModelError(_explain(name, error)) from error
    try:
        check_loaded(str(name), model, info)
    except ModelError as error:
        # transformers takes a class of its own of that type where the model's code may not run.
        if not trust and getattr(model.config, "auto_map", None):
            raise ModelError(_brings_code(name)) from error
        raise
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
    except Exception as error:
        raise ModelError(
            f"The tokenizer of {name} cannot be read ({type(error).__name__}: {error!s:.200}). "
            "Save it beside the model with save_pretrained()."
        ) from error
    check_tokenizer(str(name), tokenizer, model)
    files = _files_of(folder)
    # That of the sample is written on each machine; it was checked against what it comes from.
    setup = GGUF_SHA256 if known_sha256 else setup_sha256(files)
    return model, tokenizer, known_sha256 or weights_sha256(files), setup


def _from_pretrained(folder: str, *, dtype: torch.dtype, trust: bool) -> tuple[Any, Any]:
    """Return a model, and what transformers says of its weights."""
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
    )

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust)

    named = getattr(config, "architectures", None) or []
    classifies = any(CLASSIFIES in each for each in named)
    kind = AutoModelForSequenceClassification if classifies else AutoModelForCausalLM

    def with_attention(implementation: str) -> tuple[Any, Any]:
        # Chosen here, so that no configuration has code for attention fetched.
        config._attn_implementation = implementation
        found: Any = kind.from_pretrained(
            folder, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=trust,
            attn_implementation=implementation, output_loading_info=True,
        )  # fmt: skip
        model, info = found
        return model, info

    try:
        return with_attention("sdpa")
    except ValueError as error:
        if "scaled_dot_product_attention" not in str(error):
            raise
        return with_attention("eager")


def _dense_source(name: str | Path) -> tuple[str, str]:
    if str(name) == BACKBONE:
        folder = backbone.pull()
        return str(folder), backbone.verify(folder)
    folder = Path(name).expanduser()
    if is_folder(folder):
        check_dense_folder(folder)
        return str(folder), ""
    if folder.is_absolute() or str(name).startswith((".", "~")):
        raise ModelError(f"There is no folder {folder}. Give a folder with a model in it.")
    return str(name), ""


def _files_of(name: str) -> Path:
    """Return the folder that a model was loaded from, that of the hub's cache too."""
    folder = Path(name)
    if is_folder(folder):
        return folder
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns="*.safetensors", local_files_only=True))


def _brings_code(name: str | Path) -> str:
    return (
        f"{name} brings Python code of its own, which has not been run. If you trust its author, "
        "load it with trust_remote_code=True (--trust-remote-code). The app runs no such code; it "
        "opens the file of a trace: skipviz trace FILE --model MODEL --trust-remote-code --parquet "
        "trace.parquet"
    )


def _explain(name: str | Path, error: Exception) -> str:
    text = str(error)
    if "trust_remote_code" in text:
        return _brings_code(name)
    kind = type(error).__name__
    if kind == "SafetensorError" or "safetensor" in text.lower():
        return (
            f"The weights of {name} cannot be read as safetensors ({text.splitlines()[0]}). The "
            "file is damaged or of another kind; fetch it again."
        )
    known = ", ".join([*sample_folders(), BACKBONE])
    return (
        f"{name} could not be loaded ({kind}: {text.splitlines()[0] if text else 'no message'}). "
        f"Give a sample model ({known}), a folder with a transformers causal LM, or a hub name, "
        "which needs the network."
    )
