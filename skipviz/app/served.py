"""Which models a page may run: those that are here, and no folder that its visitors may not see.

Served to this machine alone, a page opens any folder of its user's, and runs texts of any length.
Served to others, it opens none, or those under the folder that SKIPVIZ_FOLDERS names, and runs so
many tokens at a time as SKIPVIZ_TOKENS says.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from skipviz.errors import InputError, ModelError
from skipviz.folders import BACKBONE, OWN_FILE, is_folder, model_folder, sample_folders

if TYPE_CHECKING:  # models bring torch, and a page is there before it
    from skipviz.models import SkipModel

LOOPBACK = ("127.0.0.1", "::1", "localhost")
ROOT_VARIABLE = "SKIPVIZ_FOLDERS"
TOKENS_VARIABLE = "SKIPVIZ_TOKENS"
MOST_SERVED_TOKENS = 20_000
"""Of the text of a run, where the page is served to others and nothing else is set."""


def folders_offered() -> bool:
    """Return whether a folder of this machine may be named on the page."""
    return _to_this_machine_alone() or bool(os.environ.get(ROOT_VARIABLE))


def check_known(name: str) -> None:
    """Check that a model is one that this page may run; nothing is ever downloaded for it.

    Raises
    ------
    ModelError
        If it is no sample model and no folder here, or a folder outside the one that is served.
        The sentence is the same whether or not such a folder is there.
    """
    if name in sample_folders() or name == BACKBONE:
        return
    folder = Path(name)
    if _to_this_machine_alone():
        if folder.is_absolute() and is_folder(folder):
            return
        raise ModelError(
            f"There is no model {name} on this machine. Choose a sample model, or the folder that "
            "it is in."
        )
    root = os.environ.get(ROOT_VARIABLE)
    if root and folder.is_absolute() and "\0" not in name:
        inside, served = Path(os.path.realpath(folder)), Path(os.path.realpath(root))
        if inside.is_relative_to(served) and is_folder(inside):
            return
    raise ModelError(f"{name} is not a model that this page serves. Choose a sample model.")


def load_served(name: str) -> SkipModel:
    """Load a model that this page may run.

    Raises
    ------
    ModelError
        If it is not one, or cannot be loaded.
    """
    check_known(name)
    from skipviz.models import load

    return load(name)


def load_described(name: str, gates: str) -> SkipModel:
    """Load a model that this page may run, whose gates are described in YAML.

    Raises
    ------
    ModelError
        If it is not one, or cannot be loaded.
    InputError
        If the description does not fit.
    """
    from skipviz.families.described.spec import gate_specs_in

    check_known(name)
    from skipviz.models import load

    return load(name, gates=gate_specs_in(gates, name="The description of gates"))


def gates_proposed(name: str) -> str:
    """Return a description of the gates of a model that this page may run, in YAML.

    Raises
    ------
    ModelError
        If it is not one, cannot be loaded, or has no module that may be a gate.
    """
    check_known(name)
    from skipviz.experiments.inspection import proposed_gates

    return proposed_gates(name)


def most_tokens() -> int | None:
    """Return how many tokens a run may be of; None for any number.

    Raises
    ------
    InputError
        If SKIPVIZ_TOKENS is not a number of tokens.
    """
    given = os.environ.get(TOKENS_VARIABLE)
    if not given:
        return None if _to_this_machine_alone() else MOST_SERVED_TOKENS
    if not (given.isascii() and given.isdecimal() and int(given) > 0):
        raise InputError(
            f"{TOKENS_VARIABLE} is {given!r:.40}, and must be a whole number of tokens from 1. "
            "Set it anew and start the page again."
        )
    return int(given)


def check_token_count(tokens: int) -> None:
    """Raise ``InputError`` if a run is of more tokens than this page allows."""
    most = most_tokens()
    if most is not None and tokens > most:
        raise InputError(
            f"The text has {tokens:,} tokens, and this page runs at most {most:,} at a time. Take "
            "a part of it."
        )


def identity(name: str) -> str:
    """Return what tells a model's files from others put in their place.

    That is the name, size, time and inode of each, and of what it links to. Thresholds of a
    user's own are left out; they change no model.
    """
    try:
        files = sorted(
            path for path in model_folder(name).glob("*") if not path.name.startswith(OWN_FILE)
        )
        stats = [(path.name, path.lstat(), path.stat()) for path in files]
    except OSError:
        return name  # no folder that can be read: loading the model says why
    parts = [
        f"{file} {each.st_size} {each.st_mtime_ns} {each.st_ino}"
        for file, *both in stats
        for each in both
    ]
    return "\n".join([name, *parts])


def _to_this_machine_alone() -> bool:
    return st.get_option("server.address") in LOOPBACK
