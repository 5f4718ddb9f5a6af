"""What the dense model says to the training windows, worked out once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from skipviz.families.causal_lm import logits_of


class Teacher:
    """Logits of the dense model, from last hidden states that are kept in a file.

    Running the head again costs less than running the layers, and logits would fill the disk. Runs
    over the same windows share the file. States are rounded to float16 whether they come from the
    model or from the file, so that a resumed run sees the same numbers.

    Parameters
    ----------
    model
        The dense model.
    windows
        Token ids of all training windows; the last column is only ever predicted.
    path
        The file of states, made if there is none.
    """

    def __init__(self, model: Any, windows: Int[Tensor, "n t"], path: Path) -> None:
        self._model = model
        self._windows = windows
        shape = (len(windows), windows.shape[1] - 1, int(model.config.hidden_size))
        size = int(np.prod(shape)) * 2
        if not path.exists() or path.stat().st_size != size:
            with path.open("wb") as file:
                file.truncate(size)  # zeros that take no room until they are written
        self._states = np.memmap(path, dtype=np.float16, mode="r+", shape=shape)

    @torch.no_grad()
    def logits(self, rows: Int[Tensor, " b"]) -> Float[Tensor, "b t v"]:
        """Return the logits of some windows, by their numbers."""
        places = rows.numpy()
        stored = self._states[places]
        # No state is all zeros; the last token's is written last.
        if not stored[:, -1].any(axis=-1).all():
            ids = self._windows[rows, :-1].to(self._model.device)
            states = self._model.model(ids, use_cache=False).last_hidden_state
            stored = states.to("cpu", torch.float16).numpy()
            self._states[places] = stored
        kept = torch.from_numpy(stored).to(self._model.device, self._model.dtype)
        return logits_of(self._model, kept)
