"""The notebooks run from top to bottom on a CPU, and are kept without what they showed."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
SMALL = {"EPOCHS = 8": "EPOCHS = 2"}
BRIEF = '"data=demo", "data.prepare.num_train=64", "data.prepare.num_val=40", "num_workers=0"'


def shrunk(path: Path) -> nbformat.NotebookNode:
    """The notebook on fewer images and two epochs; each replacement has to be found."""
    notebook = nbformat.read(path, as_version=4)
    for before, after in {**SMALL, '"data=demo"': BRIEF}.items():
        cells = [cell for cell in notebook.cells if before in cell.source]
        assert cells, before
        for cell in cells:
            cell.source = cell.source.replace(before, after)
    return notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_no_output(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_ends_in_pictures(path: Path, tmp_path: Path) -> None:
    notebook = shrunk(path)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    shown = [
        output.data
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type in ("display_data", "execute_result")
    ]
    assert any("image/png" in data for data in shown)
    (tmp_path / "executed.ipynb").write_text(nbformat.writes(notebook))


def test_there_are_two() -> None:
    names = {path.stem for path in NOTEBOOKS}
    assert names == {"pretrain_and_look", "search_by_similarity"}
