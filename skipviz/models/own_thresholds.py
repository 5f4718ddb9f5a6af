"""Thresholds for kinds of text that a user named, in a file beside the model.

Sample models are part of the package, which a user may not be able to write and an update
replaces: theirs are kept in the user's folder of skipviz, by the hash of the weights.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from skipviz.atomic import atomic_write
from skipviz.budgets import Budgets
from skipviz.errors import InputError, ModelError
from skipviz.families.settings import OwnThresholds, Settings
from skipviz.folders import OWN_FILE, samples_folder
from skipviz.home import home, locked
from skipviz.models.folder_checks import read_json

TAKEN = ("dense", "forced", "guarded", "learned", "none", "random", "static")
"""Names that say something else where a policy is named."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


def own_file(folder: Path, settings: Settings) -> Path:
    """Return where a user's thresholds of a model are kept.

    Parameters
    ----------
    folder
        The model's folder.
    settings
        What its ``skipviz.json`` holds.
    """
    if folder.resolve().parent == samples_folder().resolve():
        return home() / "thresholds" / f"{_weights(settings)}.json"
    return folder / OWN_FILE


def with_own(settings: Settings, folder: Path) -> Settings:
    """Return settings with the thresholds that a user set for these weights.

    Thresholds of other weights, as from before a training, are passed over.

    Raises
    ------
    ModelError
        If the file cannot be read as what ``keep_own`` writes.
    """
    path = own_file(folder, settings)
    if not path.exists():
        return settings
    try:
        fields = read_json(path)
        if fields["weights"] != _weights(settings):
            return settings
        own = {name: _read_own(name, each, settings) for name, each in fields["own"].items()}
    except (ModelError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{path} does not hold thresholds for kinds of text ({error}). Delete it, and set "
            "them again with `skipviz calibrate`."
        ) from error
    return replace(settings, own=own)


def keep_own(
    settings: Settings,
    folder: Path,
    *,
    name: str,
    budget: float,
    threshold: float,
    realised: float,
) -> Path:
    """Keep a threshold for a budget under a name, and return the file.

    Parameters
    ----------
    settings
        What the model's ``skipviz.json`` holds, under the policy whose threshold is set.
    folder
        The model's folder.
    name
        What the user calls this kind of text. Where there are thresholds of that name, those of
        other budgets stay.
    budget, threshold
        The budget and what realises it.
    realised
        What a part of the text came to on which the threshold was not set.

    Raises
    ------
    InputError
        If the name is not one, or says something else.
    """
    check_own_name(name, settings)
    path = own_file(folder, settings)
    with locked(path):
        own = dict(with_own(settings, folder).own)
        before = own.get(name)
        if before is None or before.policy != settings.made_for:
            before = OwnThresholds(
                policy=settings.made_for, thresholds=Budgets(), realised=Budgets()
            )
        own[name] = replace(
            before,
            thresholds=before.thresholds.replaced(budget, threshold),
            realised=before.realised.replaced(budget, realised),
        )
        written = {
            "weights": _weights(settings),
            "own": {each: _own_json(kept) for each, kept in own.items()},
        }
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return path


def check_own_name(name: str, settings: Settings) -> None:
    """Raise an error if a kind of text cannot be called so."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot be the name of thresholds; use at most 40 letters without accents, "
            "digits, - and _, such as german-prose."
        )
    if name in TAKEN or name in settings.made_policies:
        raise InputError(f"{name} is the name of a policy; choose another, such as german-prose.")


def _weights(settings: Settings) -> str:
    return hashlib.sha256(settings.files_sha256.encode()).hexdigest()


def _read_own(name: str, fields: Mapping[str, Any], settings: Settings) -> OwnThresholds:
    check_own_name(name, settings)
    found = OwnThresholds(
        policy=fields["policy"],
        thresholds=Budgets({b: float(value) for b, value in fields["thresholds"].items()}),
        realised=Budgets({b: float(value) for b, value in fields["realised"].items()}),
    )
    numbers = [*found.thresholds.values(), *found.thresholds, *found.realised.values()]
    if not found.thresholds or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{name} lacks a threshold, or has one that is not finite")
    if found.policy not in settings.made_policies or list(found.realised) != list(found.thresholds):
        raise ValueError(f"{name} is of a policy {found.policy!r}, or not all of it is there")
    return found


def _own_json(kept: OwnThresholds) -> dict[str, Any]:
    return {
        "policy": kept.policy,
        "thresholds": kept.thresholds.to_json(),
        "realised": kept.realised.to_json(),
    }
