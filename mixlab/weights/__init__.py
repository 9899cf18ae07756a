"""Weights under the names of the official implementations."""

from mixlab.weights.official import load_official, to_official

__all__ = ["load_official", "to_official"]
