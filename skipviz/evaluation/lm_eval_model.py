"""A skipping model as lm-evaluation-harness sees it; needs the extra ``skipviz[benchmarks]``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skipviz.errors import MissingExtraError
from skipviz.models import SkipModel, load


def harness_model(
    name: str | Path,
    *,
    budget: float | None = None,
    policy: str | None = None,
    limit: float | None = None,
    batch_size: int = 1,
    **options: Any,
) -> Any:
    """Return a model that ``lm_eval.simple_evaluate(model=...)`` takes.

    ``lm_eval.simple_evaluate(model=harness_model("smollm2-gated", budget=0.8), tasks=[...])`` runs
    a benchmark under the gates of a budget.

    Parameters
    ----------
    name, budget, policy, limit
        As for ``skipviz.load``.
    batch_size
        Requests a forward.
    options
        Further keywords of lm-evaluation-harness's ``HFLM``.

    Raises
    ------
    ImportError
        If lm-evaluation-harness is not installed; says how to install it.
    """
    try:
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise MissingExtraError(
            "Benchmarks run in lm-evaluation-harness, which is not installed: "
            "pip install 'skipviz[benchmarks]'."
        ) from error
    loaded: SkipModel = load(name, budget=budget, policy=policy, limit=limit)
    return HFLM(
        pretrained=loaded.model,
        tokenizer=loaded.tokenizer,
        backend="causal",
        batch_size=batch_size,
        max_length=loaded.context,
        **options,
    )
