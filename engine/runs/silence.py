"""Runs whose result answers no question: what it does instead, and what can be done with it."""

from __future__ import annotations

from engine.models import shape, sources
from engine.models.files import json_object
from engine.recipe import Recipe


def fills(recipe: Recipe) -> bool:
    """Whether the model fills in what is left out of a text; False where its folder is not here any more."""
    folder = sources.local(recipe.model.source, recipe.model.revision)
    return folder is not None and shape.of(json_object(folder / "config.json") or {}) != "causal"


def reason(recipe: Recipe) -> str:
    """Why the result of `recipe` is silent; empty where it answers, and where the model's folder is not here any more."""
    if recipe.stage == "reward":
        return "a reward model gives scores, not answers"
    if fills(recipe):
        return "a model that fills in what is left out of a text answers no question"
    return ""
