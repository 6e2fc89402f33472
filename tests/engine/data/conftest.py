"""Rows as a file, read as a run reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.data import dataset
from engine.data.dataset import Dataset
from engine.recipe import Data


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Dataset]:
    def load(rows: list[dict[str, Any]]) -> Dataset:
        path = tmp_path / "rows.json"
        path.write_text(json.dumps(rows))
        return dataset.load(Data(source=str(path), on_bad_row="skip"))

    return load
