"""Train gates, adapters and exits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from skipviz.cli.inputs import check_folder
from skipviz.errors import InputError

ONLY = {
    "start": {"cost", "policy-gradient", "static", "random"},
    "gate_lr": {"cost", "policy-gradient"},
    "adapter_lr": {"cost", "exit", "static", "random"},
    "ce_weight": {"cost", "exit", "static", "random"},
    "price": {"cost", "policy-gradient"},
    "descent": {"cost"},
    "collapse_after": {"cost", "policy-gradient"},
    "temperature": {"policy-gradient"},
    "exits": {"exit"},
    "choose": {"static"},
    "like": {"random"},
}
"""The objectives that an option means something to, where it does not to all."""
SHOWN_FIGURES = ("ce", "kl", "budget", "target", "reward", "greedy_reward")
"""Figures of a training step that the progress bar shows, where there are such."""


class ForObjective(TyperCommand):
    """Refuses options that mean nothing to the objective asked for."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        objective = ctx.params["objective"]
        for option, objectives in ONLY.items():
            # Typer brings a copy of click, whose ParameterSource it does not hand out.
            if objective in objectives or ctx.get_parameter_source(option).name != "COMMANDLINE":
                continue
            flag = {"exits": "exit-after"}.get(option, option.replace("_", "-"))
            raise InputError(
                f"--{flag} means nothing to --objective {objective}, but to "
                f"{', '.join(sorted(objectives))}; leave it out."
            )
        return super().invoke(ctx)


def train(
    folder: Annotated[Path, typer.Option("--out", help="Checkpoints, log and model go here.")],
    backbone: Annotated[str, typer.Option(help="Name or path.")] = "smollm2-135m",
    objective: Annotated[
        Literal["cost", "policy-gradient", "exit", "static", "random"],
        typer.Option(
            help="cost: gates, with a price on compute. policy-gradient: the gates of --start, by "
            "what drawn decisions gained. exit: translators for early exits. static, random: "
            "adapters for sites that are dropped for every token, or at random."
        ),
    ] = "cost",
    choose: Annotated[
        Literal["block-influence", "greedy"],
        typer.Option(help="How a static policy chooses the sites to drop."),
    ] = "greedy",
    like: Annotated[
        str, typer.Option(help="The gated model whose rates a random policy takes.")
    ] = "smollm2-gated",
    budget: Annotated[float, typer.Option(help="Share of dense FLOPs, 0 to 1.")] = 0.8,
    further_budgets: Annotated[
        list[float] | None,
        typer.Option("--also", help="A further budget for the same gates; may be repeated."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 1500,
    batch: Annotated[int, typer.Option(help="Windows per step.")] = 2,
    length: Annotated[int, typer.Option(help="Tokens per window.")] = 256,
    gate_lr: Annotated[float, typer.Option(help="Learning rate of the gates.")] = 2e-3,
    adapter_lr: Annotated[float, typer.Option(help="Learning rate of the adapters.")] = 1e-3,
    ce_weight: Annotated[
        float,
        typer.Option(
            help="Weight of the cross-entropy with the text, 0 to 1; the rest is that of the "
            "divergence from the dense model."
        ),
    ] = 0.1,
    start: Annotated[
        Path | None,
        typer.Option(help="Gates to train on; static and random start from their adapters."),
    ] = None,
    price: Annotated[
        float,
        typer.Option(
            help="Nats for the whole dense budget: to start from; of a policy gradient, all along."
        ),
    ] = 0.0,
    temperature: Annotated[
        float, typer.Option(help="Policy gradient: how undecided, on the scale of the score.")
    ] = 0.003,
    exits: Annotated[
        list[int] | None, typer.Option("--exit-after", help="A layer to leave after; repeat.")
    ] = None,
    descent: Annotated[float, typer.Option(help="Share of steps to reach the budget.")] = 0.25,
    collapse_after: Annotated[
        int,
        typer.Option(help="Stop when a gate does the same for all tokens of so many steps; 0: no."),
    ] = 200,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    windows: Annotated[
        Path | None,
        typer.Option(
            help="Train on the windows of this run, to compare or to spare the time; in an "
            "order of --seed, and as often as the steps need."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None,
        typer.Option(help="bfloat16 where the device multiplies it faster, if not given."),
    ] = None,
) -> None:
    """Train gates and adapters, or take up an interrupted run.

    The same command does both.
    """
    from skipviz.cli.console import err, progress
    from skipviz.corpora.held_out import calibration_texts
    from skipviz.folders import model_folder
    from skipviz.models import load
    from skipviz.text.spans import encode
    from skipviz.training.choices import matched_choice, static_choice
    from skipviz.training.objectives.cost_aware import train_gates
    from skipviz.training.objectives.exits import train_exits
    from skipviz.training.objectives.fixed_rates import train_fixed
    from skipviz.training.objectives.policy_gradient import train_policy
    from skipviz.training.prepare import TrainingRun
    from skipviz.training.recipe import Recipe, fast_dtype
    from skipviz.training.selection import equal_length
    from skipviz.training.shapes import exit_shape, gate_shape

    if objective == "policy-gradient" and start is None:
        raise InputError("--objective policy-gradient needs --start, a folder of learned gates.")
    if objective == "policy-gradient" and price <= 0:
        raise InputError(
            f"At --price {price:g} running everything is never wrong, and the gates would learn "
            "that; give a policy gradient a price above 0, such as the last of its start's run."
        )
    check_folder(folder)
    start = None if start is None else model_folder(start)
    recipe = Recipe(
        budget=budget, further_budgets=tuple(further_budgets or ()), steps=steps, batch=batch,
        length=length, gate_lr=gate_lr, adapter_lr=adapter_lr, kl_weight=1 - ce_weight,
        ce_weight=ce_weight, descent=descent, price=price,
        collapse_after=collapse_after, dtype=dtype or fast_dtype(device), seed=seed,
    )  # fmt: skip
    backbone_model = load(backbone)
    dense = backbone_model.model
    with progress("Training", total=steps, unit="steps") as advance:

        def report(figures: dict[str, Any]) -> None:
            shown = (f"{name} {figures[name]:.3f}" for name in SHOWN_FIGURES if name in figures)
            advance(float(figures["step"]), ", ".join(shown))

        run = TrainingRun(
            backbone=backbone, recipe=recipe, folder=folder, device=device, windows=windows,
            say=err.print, report=report,
        )  # fmt: skip
        texts = calibration_texts()
        lengths = [len(encode(backbone_model.tokenizer, text.text).ids) for text in texts]
        if objective in ("cost", "static", "random"):
            config = gate_shape(dense, learned=objective == "cost")
        if objective == "cost":
            made = train_gates(run, config=config, calibration=texts, start=start)
        elif objective == "policy-gradient" and start is not None:
            made = train_policy(run, temperature=temperature, start=start, calibration=texts)
        elif objective == "exit":
            made = train_exits(run, config=exit_shape(dense, exits), calibration=texts)
        elif objective == "static":
            choice = static_choice(
                choose, recipe, config, length=equal_length(lengths), say=err.print
            )
            made = train_fixed(
                run,
                config=config,
                choose=choice,
                chosen_by=f"by {choose}",
                start=start,
            )
        else:
            choice = matched_choice(like, recipe, config, texts, length=equal_length(lengths))
            made = train_fixed(
                run,
                config=config,
                choose=choice,
                chosen_by=f"like {like}",
                start=start,
            )
    err.print(f"The model is in {made}; trace with --model {made}.")
