"""One call from the names of models to the table of what they lose and save."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from skipviz.corpora import held_out
from skipviz.errors import InputError
from skipviz.evaluation.candidates import candidates_of, guarded_candidates, training_tokens
from skipviz.evaluation.frontier import frontier, measure
from skipviz.progress import Progress, Say, check_seed, no_progress, say_nothing
from skipviz.text.arguments import checked
from skipviz.text.documents import Document, as_documents


@checked
def evaluate(
    models: str | Path | Sequence[str | Path] = "smollm2-gated",
    texts: str | Document | Sequence[str | Document] | None = None,
    *,
    policies: Sequence[str] | None = None,
    budgets: Sequence[float] | None = None,
    limits: Sequence[float] | None = None,
    most: int | None = None,
    store: Path | None = None,
    seed: int = 0,
    say: Say = say_nothing,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> pl.DataFrame:
    """Compare gated models with their backbone, and with each other, on held-out text.

    Parameters
    ----------
    models
        Names or folders of gated models of one backbone.
    texts
        Each at most as long as the model's context; skipviz's reporting texts if None.
    policies, budgets
        Those to measure; all that a model has if None.
    limits
        Add the guarded policy: the cheapest threshold that, with 95% confidence, loses no more
        nats over dense than this.
    most
        How many of the texts to run, from all kinds alike; all if None.
    store
        A Parquet file of figures measured before, which are not measured again.
    seed
        Seed of the bootstrap.
    say
        Called with a sentence now and then while a threshold is sought.
    progress
        Called with the share of the work done, 0 to 1.
    stop
        Set it from another thread to stop; documents that are done stay in ``store``.

    Returns
    -------
    pl.DataFrame
        One row per policy and budget, the dense model first: ``model``, ``policy``, ``budget``,
        ``limit``, ``documents``, ``tokens``; means over the texts of ``nll``, ``gap`` (loss over
        the dense model's), ``kl``, ``top1``, ``layers_used``, ``over_learned`` (loss over that of
        the learned gates at the same budget) and ``gap_at_asked`` (loss over dense at exactly the
        budget asked for), each with its 95% interval in ``_low`` and ``_high``; these two are null
        where the budgets measured do not enclose it: not at equal budget. ``realised``, the budget
        on these texts; ``missed``, whether it is more than 0.02 off; ``flop_share`` of the dense
        model's whole forward, and its parts ``attention_share``, ``mlp_share``,
        ``adapters_share``, ``gates_share``, ``kv_share`` and ``head_share``; ``training_tokens``
        that the gates learnt from, null if not recorded.

    Raises
    ------
    InputError
        If the models have different backbones, a policy or budget is not one of theirs, a text is
        too short or too long, or ``guarded`` is asked for without a limit.
    StoreError
        If ``store`` is damaged, or is none.
    Stopped
        If ``stop`` was set.

    Examples
    --------
    >>> table = skipviz.evaluate(folder, ["A text.", "Another text, a bit longer."])
    >>> table.select("policy", "budget", "documents").rows()
    [('dense', None, 2), ('learned', 0.8, 2), ('learned', 0.6, 2)]
    """
    check_seed(seed)
    names = [str(name) for name in ([models] if isinstance(models, str | Path) else models)]
    if policies is not None and ("guarded" in policies) != bool(limits):
        raise InputError(
            "The guarded policy and its limit go together: give both, such as the policy guarded "
            "and the limit 0.1, or neither."
        )
    # Those whose gates are guarded are loaded, whether they are to be measured or not.
    wanted = [*policies, "learned"] if policies is not None and limits else policies
    dense, candidates = candidates_of(names, policies=wanted, budgets=budgets)
    candidates += guarded_candidates(
        dense,
        candidates,
        held_out.calibration_texts() if limits else [],
        limits=limits or [],
        say=say,
        stop=stop,
    )
    if policies is not None:
        candidates = [candidate for candidate in candidates if candidate.policy in policies]
    documents = held_out.reporting_texts() if texts is None else as_documents(texts)
    measured = measure(
        candidates, dense, documents, most=most, store=store, progress=progress, stop=stop
    )
    table = frontier(measured, seed=seed)
    learnt = {name: training_tokens(name) for name in table["model"].unique()}
    return table.with_columns(
        training_tokens=pl.col("model").replace_strict(learnt, return_dtype=pl.Int64)
    )
