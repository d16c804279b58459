"""The notebooks as they are kept: run once from top to bottom, and fit to be shown.

That they run is tested apart, from clean kernels, by ``pytest -p nbmake --nbmake notebooks``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_are_notebooks_in_order():
    assert [path.name[0] for path in NOTEBOOKS] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_kept_and_clean(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    for output in outputs:
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr"
        data = output.get("data", {})
        texts = ["".join(data.get(kind, "")) for kind in ("text/plain", "text/html")]
        shown = "\n".join([*texts, "".join(output.get("text", ""))])
        assert not re.search(r"Warning|/(home|root|tmp|Users)/|site-packages", shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_are_small_enough_to_be_read_on_a_code_host(path):
    assert path.stat().st_size < 1_000_000
