"""What a site is called in a sentence."""

from __future__ import annotations


def site_name(layer: int, unit: str, visit: int = 0) -> str:
    """Return the name of a site at the start of a sentence: ``Layer 17's MLP``."""
    name = f"Layer {layer}" + {"attn": "'s attention", "mlp": "'s MLP"}.get(unit, "")
    return name + (f", on visit {visit + 1}," if visit else "")
