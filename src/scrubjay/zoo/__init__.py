"""Small models to experiment on: a plain transformer, recipes that train it, and models trained with them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from scrubjay.zoo import brackets, induction
from scrubjay.zoo.recipe import Recipe
from scrubjay.zoo.store import models, read, write
from scrubjay.zoo.transformer import Config, Transformer

__all__ = ["RECIPES", "Config", "Recipe", "Transformer", "models", "read", "write"]

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {recipe.name: recipe for recipe in (brackets.RECIPE, induction.RECIPE)}
)
"""Every recipe by name."""
