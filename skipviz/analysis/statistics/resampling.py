"""What chance is imitated by: random signs of waves, and parts of texts that are left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skipviz.analysis.statistics.blocks import block_parts, tokens_by_text
from skipviz.analysis.statistics.trends import waves
from skipviz.arrays import Floats, Ints
from skipviz.errors import InputError
from skipviz.progress import check_seed

MOST_PERMUTATIONS = 100_000
MOST_PARTS = 16
"""Parts that are left out in turn, at most; of a long text they are several blocks each."""


@dataclass(frozen=True, eq=False)
class Resampling:
    """Signs of waves and parts of texts, the same for all figures that are tested together.

    Attributes
    ----------
    texts
        The tokens of each text.
    document
        The text of each token, counted from 0, [tokens].
    signs
        1 or -1 for each wave, [permutations, waves].
    part
        The part of each token that is left out together, from 0, [tokens].
    """

    texts: list[Ints]
    document: Ints
    signs: Floats
    part: Ints

    @classmethod
    def of(
        cls,
        length: int,
        *,
        documents: Ints | None = None,
        block: int,
        permutations: int,
        seed: int = 0,
    ) -> Resampling:
        """Draw them for ``length`` tokens.

        Parameters
        ----------
        length
            Tokens, at least 3.
        documents
            The text of each token, [length]; None if it is one.
        block
            Neighbouring tokens that stay together; a shorter text stays together whole.
        permutations
            How many signs of each wave.
        seed
            Seed of them.

        Raises
        ------
        ValueError
            If there are fewer than three tokens, or no blocks, permutations or texts of these.
        """
        check_seed(seed)
        if length < 3:
            raise InputError(f"{length} tokens are too few to correlate anything; give at least 3.")
        if block < 1:
            raise InputError(f"block={block} must be at least 1 token.")
        if not 1 <= permutations <= MOST_PERMUTATIONS:
            raise InputError(
                f"permutations={permutations:,} must be from 1 to {MOST_PERMUTATIONS:,}."
            )
        if documents is not None and len(documents) != length:
            raise InputError(
                f"{len(documents)} texts are named for {length} tokens; name the text of each."
            )
        given = np.zeros(length, dtype=np.int64) if documents is None else documents
        texts = tokens_by_text(given)
        count = len(waves(np.zeros(length), texts))
        generator = np.random.default_rng(seed)
        return cls(
            texts,
            np.unique(given, return_inverse=True)[1],
            generator.choice([-1.0, 1.0], size=(permutations, count)),
            block_parts(texts, block=block, most=MOST_PARTS),
        )
