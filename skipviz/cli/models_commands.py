"""Find, fetch and describe models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from skipviz.cli.inputs import Remote, visible

if TYPE_CHECKING:
    from skipviz.families import Settings


def list_models() -> None:
    """List the sample models."""
    from rich.table import Table

    from skipviz.cli.console import out
    from skipviz.errors import ModelError
    from skipviz.folders import BACKBONE, sample_folders
    from skipviz.models import backbone, read_settings

    table = Table("model", "what", "size on disk", "ready")
    for name, folder in sample_folders().items():
        try:
            settings = read_settings(folder)
        except ModelError as error:  # the others are there all the same
            table.add_row(name, str(error), _megabytes(folder), "no")
            continue
        policies = ", ".join(settings.policies)
        what = f"{policies} on {settings.backbone}, budgets {settings.budgets}"
        table.add_row(name, what, _megabytes(folder), _ready())
    what = "dense backbone, SmolLM2-135M-Instruct, Apache-2.0, 93 MB to download"
    size = _megabytes(backbone.backbone_folder()) if backbone.is_pulled() else "538 MB"
    table.add_row(BACKBONE, what, size, _ready())
    out.print(table)


def pull(name: str) -> None:
    """Fetch a sample model; the gates come with skipviz, their backbone is fetched once."""
    from skipviz.cli.console import out
    from skipviz.errors import ModelError
    from skipviz.folders import BACKBONE, sample_folders
    from skipviz.models import backbone

    known = [*sample_folders(), BACKBONE]
    if name not in known:
        raise ModelError(f"There is no sample model {name!r}; there are {', '.join(known)}.")
    folder = backbone.pull(report=out.print)
    out.print(f"{name} is ready; the backbone is in {folder}.")


def info(name: str, trust_remote_code: Remote = False) -> None:
    """Say what a model is."""
    from rich.table import Table
    from rich.text import Text

    import skipviz
    from skipviz.cli.console import out

    model = skipviz.load(name, trust_remote_code=trust_remote_code)
    sites = model.family.sites(model.model)
    config = model.model.config
    size = sum(p.numel() * p.element_size() for p in model.model.parameters())
    settings = model.settings
    table = Table("", str(model.name))
    table.add_row("architecture", type(model.model).__name__)
    table.add_row("layers", str(config.num_hidden_layers))
    table.add_row("width", str(config.hidden_size))
    table.add_row("vocabulary", f"{config.vocab_size:,}")
    table.add_row("context", f"{model.context:,} tokens")
    table.add_row("family", model.family.name)
    table.add_row("sites", f"{len(sites)}, in {len({site.layer for site in sites})} layers")
    table.add_row("budget", "none" if model.budget is None else f"{model.budget:g}")
    if settings is not None:
        table.add_row("backbone", Text(visible(settings.backbone), overflow="fold"))
        for what, setting in _settings(settings):
            table.add_row(what, setting)
        table.add_row("gates (SHA-256)", Text(settings.gates_sha256, overflow="fold"))
    table.add_row("weights in memory", f"{size / 1e6:,.1f} MB, {model.dtype}")
    table.add_row("weights (SHA-256)", Text(model.weights_sha256, overflow="fold"))
    out.print(table)


def _settings(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield what each policy sets for each budget, and the guarded one for each limit."""
    for policy in settings.policies:
        for budget, setting in settings.under(policy, name="").budgets.items():
            yield f"{policy}, budget {budget:g}", str(setting)
    for limit, setting in settings.limits.items():
        yield f"guarded, at most {limit:g} nats", str(setting)


def _ready() -> str:
    from skipviz.models import backbone

    return "yes" if backbone.is_pulled() else "after `skipviz models pull`"


def _megabytes(folder: Path) -> str:
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return f"{size / 1e6:.0f} MB"
