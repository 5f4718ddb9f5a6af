"""Find, fetch and describe models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from skipviz.cli.console import Remote, out

if TYPE_CHECKING:
    from skipviz.models.samples import ModelConfig


def list_models() -> None:
    """List the sample models."""
    from skipviz.models import backbone
    from skipviz.models.samples import read_config, sample_folders

    table = Table("model", "what", "size", "ready")
    for name, folder in sample_folders().items():
        config = read_config(folder)
        budgets = ", ".join(config.budgets)
        what = f"{', '.join(config.policies)} on {config.backbone}, budgets {budgets}"
        table.add_row(name, what, _megabytes(folder), _ready())
    what = "dense backbone, SmolLM2-135M-Instruct, Apache-2.0"
    size = _megabytes(backbone.backbone_folder()) if backbone.is_pulled() else "538 MB"
    table.add_row(backbone.NAME, what, size, _ready())
    out.print(table)


def pull(name: str) -> None:
    """Fetch a sample model; the gates come with skipviz, their backbone is fetched once."""
    from skipviz.errors import ModelError
    from skipviz.models import backbone
    from skipviz.models.samples import sample_folders

    known = [*sample_folders(), backbone.NAME]
    if name not in known:
        raise ModelError(f"There is no sample model {name!r}; there are {', '.join(known)}.")
    folder = backbone.pull(report=out.print)
    out.print(f"{name} is ready; the backbone is in {folder}.")


def info(name: str, trust_remote_code: Remote = False) -> None:
    """Say what a model is."""
    import skipviz
    from skipviz.models.samples import CONFIG, model_folder, read_config

    model = skipviz.load(name, trust_remote_code=trust_remote_code)
    sites = model.family.sites(model.model)
    config = model.model.config
    size = sum(p.numel() * p.element_size() for p in model.model.parameters())
    folder = model_folder(name)
    gated = read_config(folder) if (folder / CONFIG).exists() else None
    table = Table("", str(model.name))
    table.add_row("architecture", type(model.model).__name__)
    table.add_row("layers", str(config.num_hidden_layers))
    table.add_row("width", str(config.hidden_size))
    table.add_row("vocabulary", f"{config.vocab_size:,}")
    table.add_row("context", f"{model.context:,} tokens")
    table.add_row("family", model.family.name)
    table.add_row("sites", f"{len(sites)}, in {len({site.layer for site in sites})} layers")
    table.add_row("budget", "none" if model.budget is None else f"{model.budget:g}")
    if gated is not None:
        table.add_row("backbone", Text(gated.backbone, overflow="fold"))
        for budget, threshold in _thresholds(gated).items():
            table.add_row(f"threshold for budget {budget}", f"{threshold:.6f}")
        table.add_row("gates (SHA-256)", Text(gated.gates_sha256, overflow="fold"))
    table.add_row("weights in memory", f"{size / 1e6:,.1f} MB, {model.dtype}")
    table.add_row("weights (SHA-256)", Text(model.weights_sha256, overflow="fold"))
    out.print(table)


def _thresholds(config: ModelConfig) -> dict[str, float]:
    """Return a model's thresholds, by budget, or by rule and budget."""
    from skipviz.models.samples import ExitModelConfig

    if not isinstance(config, ExitModelConfig):
        return config.thresholds
    return {
        f"{rule} {budget}": level
        for rule, levels in config.thresholds.items()
        for budget, level in levels.items()
    }


def _ready() -> str:
    from skipviz.models import backbone

    return "yes" if backbone.is_pulled() else "after `skipviz models pull`"


def _megabytes(folder: Path) -> str:
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return f"{size / 1e6:.0f} MB"
