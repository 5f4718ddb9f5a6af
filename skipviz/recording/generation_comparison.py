"""Two texts that were written from one prompt, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

import polars as pl

from skipviz.errors import InputError
from skipviz.recording.generating import Generation
from skipviz.text.arguments import checked


@dataclass(frozen=True, kw_only=True, eq=False)
class GenerationComparison:
    """Where two texts part, and what each took.

    Attributes
    ----------
    token
        The first written token that differs, from 0; None where none does. A text that was stopped
        is compared as far as it was written.
    shared
        The text up to there.
    texts
        The characters that this token adds in each; empty where a text has ended before.
    figures
        A row for each: ``model``, ``policy``, ``runtime``, ``tokens`` written, ``ended``; mean
        ``layers_used`` of the tokens that were written and run (null where there are none), and
        ``prompt_layers_used`` of those of the prompt; ``seconds_to_first`` and
        ``tokens_per_second``, of one run each.

    Examples
    --------
    >>> both = [skipviz.generate(each, "The quick", max_new_tokens=6) for each in (model, model)]
    >>> found = skipviz.compare_generations(*both)
    >>> found.token is None, found.shared == both[0].text
    (True, True)
    """

    token: int | None
    shared: str
    texts: tuple[str, str]
    figures: pl.DataFrame

    def __repr__(self) -> str:
        return f"GenerationComparison(token={self.token}, texts={self.texts})"


@checked
def compare_generations(first: Generation, second: Generation) -> GenerationComparison:
    """Compare two texts written from one prompt, such as a model's and its backbone's.

    Parameters
    ----------
    first, second
        What ``skipviz.generate`` returned, with the same settings and seed.

    Returns
    -------
    GenerationComparison
        Where they part, and what each took. Times are those of one run each; on a machine that
        does other work they vary.

    Raises
    ------
    InputError
        If the prompts differ.

    Examples
    --------
    >>> cheaper = skipviz.at_budget(model, 0.6)
    >>> found = skipviz.compare_generations(
    ...     skipviz.generate(model, "The quick", max_new_tokens=6),
    ...     skipviz.generate(cheaper, "The quick", max_new_tokens=6),
    ... )
    >>> found.figures.select("tokens", "ended").rows()
    [(6, 'max_new_tokens'), (6, 'max_new_tokens')]
    """
    prompts = [[token.token_id for token in each.read] for each in (first, second)]
    if prompts[0] != prompts[1]:
        raise InputError(
            f"The prompts differ ({len(prompts[0])} and {len(prompts[1])} tokens). Generate both "
            "texts from the same prompt."
        )
    ids = [[token.token_id for token in each.written] for each in (first, second)]
    pairs = zip_longest(*ids)
    token = next((place for place, (one, other) in enumerate(pairs) if one != other), None)
    shorter, common = min((first, second), key=lambda each: len(each.written)), min(map(len, ids))
    if token == common and shorter.ended == "stopped":  # it did not end there by itself
        token = None
    return GenerationComparison(
        token=token,
        shared="".join(each.text for each in first.written[: common if token is None else token]),
        texts=(_text_at(first, token), _text_at(second, token)),
        figures=pl.DataFrame(
            [_figures(first), _figures(second)],
            schema={
                "model": pl.String,
                "policy": pl.String,
                "runtime": pl.String,
                "tokens": pl.Int64,
                "ended": pl.String,
                "layers_used": pl.Float64,
                "prompt_layers_used": pl.Float64,
                "seconds_to_first": pl.Float64,
                "tokens_per_second": pl.Float64,
            },
        ),
    )


def _text_at(generation: Generation, token: int | None) -> str:
    written = generation.written
    return "" if token is None or token >= len(written) else written[token].text


def _figures(generation: Generation) -> dict[str, object]:
    return {
        **generation.trace.run.select("model", "policy", "runtime").row(0, named=True),
        "tokens": len(generation.written),
        "ended": generation.ended,
        "layers_used": generation.mean_layers("decode"),
        "prompt_layers_used": generation.mean_layers("prefill"),
        "seconds_to_first": generation.seconds_to_first,
        "tokens_per_second": generation.tokens_per_second,
    }
