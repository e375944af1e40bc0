"""The notebook runs from the first to the last cell after a demo, here one with initial weights."""
import os
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope

from remax_mm.apis import load_config
from tests.conftest import REPOSITORY

nbformat = pytest.importorskip('nbformat', reason='the notebook needs nbformat, nbclient and ipykernel')
nbclient = pytest.importorskip('nbclient', reason='the notebook needs nbformat, nbclient and ipykernel')
pytest.importorskip('ipykernel', reason='the notebook needs nbformat, nbclient and ipykernel')

PATH = REPOSITORY / 'demo' / 'inference.ipynb'


def test_notebook__has_no_outputs_and_no_paths_of_a_machine():
    notebook = nbformat.read(PATH, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert len(cells) > 5
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    assert str(REPOSITORY) not in PATH.read_text() and str(Path.home()) not in PATH.read_text()


@pytest.mark.slow
def test_notebook__runs(tmp_path, monkeypatch):
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(load_config('remax-mini').model)
    monkeypatch.setenv('PYTHONPATH', f'{REPOSITORY}{os.pathsep}{os.environ.get("PYTHONPATH", "")}')
    demo = tmp_path / 'work_dirs' / 'demo'
    demo.mkdir(parents=True)
    torch.save(dict(state_dict=model.state_dict()), demo / 'iter_1000.pth')
    (demo / 'last_checkpoint').write_text('work_dirs/demo/iter_1000.pth')
    notebook = nbformat.read(PATH, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name='python3', resources=dict(metadata=dict(path=tmp_path))).execute()

    shown = [output for cell in notebook.cells for output in cell.get('outputs', ())]
    assert not [output for output in shown if output.output_type == 'error']
    assert sum('image/png' in output.get('data', {}) for output in shown) == 3
    files = sorted(path.relative_to(tmp_path / 'outputs') for path in (tmp_path / 'outputs').rglob('*.*'))
    assert files == [
        Path('00000000.json'),
        Path('00000000_overlay.png'),
        Path('00000000_panoptic.png'),
        Path('model/model.safetensors')
    ]
