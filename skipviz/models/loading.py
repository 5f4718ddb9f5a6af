"""From a name or a folder to a model that is ready to be traced."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from skipviz.errors import InputError, ModelError
from skipviz.families import Family, family_of
from skipviz.families.exits.modules import ExitRule, install_exits, set_exit_rule
from skipviz.families.gated.fixed_rates import install_rates, set_rates
from skipviz.families.gated.modules import install_gates, set_threshold
from skipviz.home import sha256_of
from skipviz.models import backbone
from skipviz.models.gate_weights import read_gates
from skipviz.models.progress_bars import no_bars
from skipviz.models.samples import (
    CONFIG,
    ExitModelConfig,
    GatedModelConfig,
    ModelConfig,
    checked_adapters,
    checked_gates,
    model_folder,
    read_config,
    sample_folders,
)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True, eq=False)
class SkipModel:
    """A model with what is needed to trace it.

    Attributes
    ----------
    name
        The name or path it was loaded by.
    model, tokenizer
        A transformers causal LM in eval mode, and its tokenizer.
    family
        How its gates are found, read and forced.
    weights_sha256
        SHA-256 of the weights, backbone and gates together.
    budget
        The budget whose thresholds are in use; None where there is none.
    limit
        The nats over dense that the guarded policy in use may lose; None under any other.
    policy
        Who decides: ``learned``, ``guarded``, ``static``, ``random``, ``dense``, or a rule of early
        exits.
    settings
        What is written beside its gates; None for a model that was not read from such a folder.
    """

    name: str
    model: Any
    tokenizer: Any
    family: Family
    weights_sha256: str
    budget: float | None
    policy: str
    limit: float | None = None
    settings: ModelConfig | None = None

    @property
    def context(self) -> int:
        """Tokens that the model can see at once."""
        return int(getattr(self.model.config, "max_position_embeddings", 2048))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def dtype(self) -> str:
        """Type of the backbone's weights."""
        return str(self.model.dtype).removeprefix("torch.")


def load(
    name: str | Path,
    *,
    budget: float | None = None,
    policy: str | None = None,
    limit: float | None = None,
    dtype: str = "float32",
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
        For learned gates, the guarded policy instead: the nats a token over dense that it may
        lose, one of those that the gates are guarded for.
    dtype
        ``float32``, in which traces are exact, or ``bfloat16``, faster, in which some decisions
        flip.
    device
        A torch device.
    trust_remote_code
        Whether Python code that comes with a model may run. Only safetensors are read either way.

    Raises
    ------
    ModelError
        If there is no such model, or its files are missing, damaged or of another kind.
    ValueError
        If ``dtype``, ``budget`` or ``policy`` is not one of those on offer.
    """
    if limit is not None and (budget is not None or policy is not None):
        raise InputError(
            f"limit={limit} finds a threshold of its own; leave budget and policy out beside it."
        )
    if dtype not in DTYPES:
        raise InputError(f"dtype={dtype!r} is not one of {', '.join(DTYPES)}.")
    folder = model_folder(name)
    if (folder / CONFIG).exists():
        loaded = _load_gated(
            folder, budget=budget, policy=policy, dtype=dtype, trust=trust_remote_code
        )
        loaded = replace(loaded, name=str(name))
    elif budget is not None or policy is not None:
        asked = f"budget={budget}" if policy is None else f"policy={policy!r}"
        raise InputError(f"{asked} was asked of {name}, which has no gates; leave it out.")
    else:
        loaded = _load_dense(name, dtype=dtype, trust=trust_remote_code)
    if limit is not None:
        loaded = at_limit(loaded, limit)
    loaded.model.to(device)
    return loaded


def from_parts(
    model: Any, tokenizer: Any, *, name: str = "model", weights_sha256: str = "",
    budget: float | None = None, family: Family | None = None,
) -> SkipModel:  # fmt: skip
    """Wrap a model that is already in memory.

    Parameters
    ----------
    model, tokenizer
        A transformers causal LM and its tokenizer.
    name, weights_sha256, budget
        What the trace is to say of them.
    family
        How its gates are found, read and forced, for gates that skipviz does not know; None takes
        the first known family that recognises the model.

    Raises
    ------
    ValueError
        If the family does not recognise the model.
    """
    if family is None:
        family = family_of(model)
    elif not family.detect(model):
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
        policy="learned" if family.sites(model) else "dense",
    )


def _load_gated(
    folder: Path, *, budget: float | None, policy: str | None, dtype: str, trust: bool
) -> SkipModel:
    config = read_config(folder)
    if policy is not None:
        config = of_policy(config, policy, name=folder.name)
    chosen = float(config.budget) if budget is None else budget
    _check_budget(config, chosen, name=folder.name)
    gates = checked_gates(config, folder)
    dense = _load_dense(config.backbone, dtype=dtype, trust=trust)
    if dense.weights_sha256 != config.backbone_sha256:
        raise ModelError(
            f"{folder.name} was trained on other weights of {config.backbone} than those found; "
            "its gates would mean nothing. Pull the backbone again."
        )
    if isinstance(config, ExitModelConfig):
        install_exits(dense.model, config.exits)
        read_gates(dense.model, gates, rates={})
    else:
        if config.rates:
            install_rates(dense.model, config.gates, seed=0)
        else:
            install_gates(dense.model, config.gates)
        adapters = checked_adapters(config, folder)
        read_gates(dense.model, gates, rates=config.rates, adapters=adapters)
    shared_sha256 = "" if isinstance(config, ExitModelConfig) else config.adapters_sha256
    parts = dense.weights_sha256 + config.gates_sha256 + shared_sha256
    both = hashlib.sha256(parts.encode()).hexdigest()
    made = from_parts(dense.model, dense.tokenizer, name=folder.name, weights_sha256=both)
    return at_budget(replace(made, policy=config.policy, settings=config), chosen)


def at_budget(model: SkipModel, budget: float) -> SkipModel:
    """Set a loaded model to another of its budgets, in place, and say so in what is returned.

    Parameters
    ----------
    model
        A model with gates, as ``load`` returned it.
    budget
        One of the budgets that its thresholds or rates are for.

    Raises
    ------
    ValueError
        If the model has no gates, or none for this budget.
    """
    if model.settings is None:
        raise InputError(f"budget={budget} was asked of {model.name}, which has no budgets.")
    _check_budget(model.settings, budget, name=model.name)
    if isinstance(model.settings, ExitModelConfig):
        rule = cast(ExitRule, model.settings.policy)
        set_exit_rule(model.model, rule, model.settings.thresholds[rule][f"{budget:g}"])
    elif model.settings.rates:
        set_rates(model.model, model.settings.rates[f"{budget:g}"])
    else:
        set_threshold(model.model, model.settings.thresholds[f"{budget:g}"])
    return replace(model, budget=budget)


def with_policy(model: SkipModel, policy: str) -> SkipModel:
    """Return a loaded model under another of its policies; ``at_budget`` then sets it.

    Raises
    ------
    ValueError
        If the model has no such policy.
    """
    if model.settings is None:
        raise InputError(f"policy={policy!r} was asked of {model.name}, which has no policies.")
    settings = of_policy(model.settings, policy, name=model.name)
    return replace(model, policy=policy, settings=settings)


def of_policy(config: ModelConfig, policy: str, *, name: str) -> ModelConfig:
    """Return what is written beside a model under another of its policies.

    Raises
    ------
    ValueError
        If there is no such policy.
    """
    if policy not in config.policies:
        raise InputError(
            f"policy={policy!r} is none of {name}'s; there are {', '.join(config.policies)}."
        )
    chosen = replace(config, policy=policy)
    # A rule of whole numbers meets other budgets than one of probabilities.
    budget = chosen.budget if chosen.budget in chosen.budgets else chosen.budgets[0]
    return replace(chosen, budget=budget)


def at_limit(model: SkipModel, limit: float) -> SkipModel:
    """Set learned gates to the guarded policy, in place, and say so in what is returned.

    Parameters
    ----------
    model
        A model of learned gates, as ``load`` returned it.
    limit
        One of the limits it is guarded for, in nats a token over dense.

    Raises
    ------
    ValueError
        If the model is not guarded for this limit.
    """
    guards = model.settings.guards if isinstance(model.settings, GatedModelConfig) else {}
    if f"{limit:g}" not in guards:
        known = f"there are {', '.join(guards)}" if guards else "run `skipviz guard` first"
        raise InputError(f"{model.name} is not guarded for limit={limit:g}; {known}.")
    set_threshold(model.model, guards[f"{limit:g}"])
    return replace(model, policy="guarded", budget=None, limit=limit)


def _check_budget(config: ModelConfig, budget: float, *, name: str) -> None:
    if f"{budget:g}" not in config.budgets:
        raise InputError(
            f"budget={budget:g} is not calibrated for {name}; there are "
            f"{', '.join(config.budgets)}."
        )


def _load_dense(name: str | Path, *, dtype: str, trust: bool) -> SkipModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, known_sha256 = _dense_source(name)
    try:
        with no_bars():
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=DTYPES[dtype], use_safetensors=True, trust_remote_code=trust
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
    except Exception as error:  # every library below raises its own kinds
        raise ModelError(_explain(name, error)) from error
    sha256 = known_sha256 or _weights_sha256(folder)
    return from_parts(model, tokenizer, name=str(name), weights_sha256=sha256)


def _dense_source(name: str | Path) -> tuple[str, str]:
    if str(name) == backbone.NAME:
        folder = backbone.pull()
        return str(folder), backbone.verify(folder)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not list(folder.glob("*.safetensors")):
            raise ModelError(
                f"{folder} holds no .safetensors file. skipviz reads weights from safetensors "
                "only; save the model with save_pretrained()."
            )
        return str(folder), ""
    if folder.is_absolute() or str(name).startswith((".", "~")):
        raise ModelError(f"There is no folder {folder}. Give a folder with a model in it.")
    return str(name), ""


def _weights_sha256(name: str) -> str:
    """Hash the files: what they say is the same whatever type they are loaded in."""
    folder = Path(name)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(
            snapshot_download(name, allow_patterns="*.safetensors", local_files_only=True)
        )
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(sha256_of(path).encode())
    return digest.hexdigest()


def _explain(name: str | Path, error: Exception) -> str:
    text = str(error)
    if "trust_remote_code" in text:
        return (
            f"{name} brings Python code of its own, which has not been run. If you trust its "
            "author, load it with trust_remote_code=True (--trust-remote-code)."
        )
    kind = type(error).__name__
    if kind == "SafetensorError" or "safetensor" in text.lower():
        return (
            f"The weights of {name} cannot be read as safetensors ({text.splitlines()[0]}). The "
            "file is damaged or of another kind; fetch it again."
        )
    known = ", ".join([*sample_folders(), backbone.NAME])
    return (
        f"{name} could not be loaded ({kind}: {text.splitlines()[0] if text else 'no message'}). "
        f"Give a sample model ({known}), a folder with a transformers causal LM, or a hub name, "
        "which needs the network."
    )
