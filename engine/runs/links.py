"""The runs of a chain: a run for each stage, and a file in each that names them all.

    chain.json    {"runs": [folder name, …]} in the order of the stages; only where there are several

A run needs those whose results its recipe names: an adapter to begin from, a reward model.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine import chain
from engine.errors import FtuiError
from engine.paths import write_private
from engine.recipe import Recipe
from engine.runs import directory
from engine.runs.directory import RunDir

FILE = "chain.json"


def create(stages: Sequence[tuple[Recipe, dict[str, Any]]]) -> list[RunDir]:
    """Make the folders of new runs from (recipe, plan) of each stage; all of them or none. Nothing is started.

    The first run's recipe holds the whole chain; those of the others are resolved to folders of runs.
    FtuiError as `directory.create`.
    """
    made: list[RunDir] = []
    folders: dict[str, Path] = {}
    try:
        for recipe, plan in stages:
            whole = chain.resolved(recipe, folders) if made else chain.linked(one for one, _ in stages)
            made.append(directory.create(whole, plan))
            folders[recipe.stage] = made[-1].path
        if len(made) > 1:
            names = json.dumps({"runs": [run.name for run in made]}, indent=1) + "\n"
            for run in made:
                with directory.writing(run.path):
                    write_private(run.path / FILE, names)
    except BaseException:
        for run in made:
            shutil.rmtree(run.path, ignore_errors=True)
        raise
    return made


def members(run: RunDir) -> list[RunDir]:
    """The runs of the chain in their order, gone ones too; the run alone where it is part of none."""
    try:
        names = json.loads((run.path / FILE).read_bytes())["runs"]
        found = [RunDir(run.path.parent / Path(name).name) for name in names]
    except (OSError, ValueError, TypeError, KeyError):
        return [run]
    return found if run in found else [run]


def needs(run: RunDir) -> list[RunDir]:
    """The runs of the same chain whose results this one begins from or is rewarded by."""
    earlier = members(run)
    earlier = earlier[: earlier.index(run)]
    if not earlier:
        return []
    try:
        recipe = run.recipe()
    except FtuiError:
        return []
    named = {str(Path(recipe.adapter or "").parent), recipe.reward}
    return [one for one in earlier if str(one.path) in named]


def label(run: RunDir) -> str:
    """ "congyu (sft)": what a person calls the run, and its stage; the folder's name where it is gone."""
    try:
        return f"{directory.handle(run)} ({run.recipe().stage})"
    except (FtuiError, OSError):
        return run.name


def labels(runs: Sequence[RunDir]) -> str:
    """ "a (sft) and b (reward)"."""
    return " and ".join(map(label, runs))
