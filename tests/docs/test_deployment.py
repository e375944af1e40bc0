"""The code and the commands of docs/deployment.md on optimization and benchmark."""
import re
import runpy
import shlex

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from remax_mm.apis import PanopticInferencer
from remax_mm.datasets.mini_panoptic import write_mini_panoptic
from remax_mm.deploy.optimize import optimize_for_inference
from tests.conftest import REPOSITORY
from tests.tiny_model import detector_config

PAGE = (REPOSITORY / 'docs' / 'deployment.md').read_text()
TEXT = PAGE[PAGE.index('## Optimization'):]
MINI = REPOSITORY / 'configs' / 'mini' / 'remax_mnv3-s_1xb8-1k_mini-129.py'


def _blocks(language):
    return re.findall(rf'```{language}\n(.*?)```', TEXT, re.DOTALL)


@pytest.fixture
def config(tmp_path):
    """Config of a small model with the mini dataset's classes and test pipeline, and a checkpoint."""
    config = Config.fromfile(MINI)
    model = detector_config()
    model['panoptic_head'].update(num_things_classes=7, num_stuff_classes=5)
    model['data_preprocessor']['pad_size'] = 129
    config.model = model
    config.dump(tmp_path / 'tiny.py')
    with DefaultScope.overwrite_default_scope('mmdet'):
        torch.save(dict(state_dict=MODELS.build(config.model).state_dict(), meta={}), tmp_path / 'tiny.pth')
    return tmp_path


@pytest.mark.slow
def test_page__python(config, capsys):
    model = PanopticInferencer(config / 'tiny.py', str(config / 'tiny.pth'), 'cpu').model
    names = dict(config=config / 'tiny.py', checkpoint=str(config / 'tiny.pth'), model=model)
    for block in [block for block in _blocks('python') if 'onnx' not in block]:
        exec(block, names)
    assert 'batch norms folded' in capsys.readouterr().out
    assert names['optimized'].panoptic_head.report.folded and not names['runner'].reasons

    # The optimized inferencer gives the segments of the plain one.
    image = np.random.RandomState(0).randint(0, 256, (40, 60, 3)).astype(np.uint8)
    plain, = PanopticInferencer(config / 'tiny.py', str(config / 'tiny.pth'), 'cpu').stream(image)
    optimized, = names['inferencer'].stream(image)
    assert len(plain.segments_info) > 1
    np.testing.assert_array_equal(optimized.segment_map, plain.segment_map)
    with pytest.raises(TypeError, match='not optimized'):
        optimize_for_inference(names['inferencer'].model)
    with pytest.raises(ValueError, match='`optimize=False` to write'):
        names['inferencer'].publish(config / 'tiny.safetensors')


def test_page__commands_have_valid_arguments():
    commands = [command for block in _blocks('bash') for command in block.replace('\\\n', '').splitlines()]
    own = [shlex.split(command)[1:] for command in commands if 'onnx' not in command]
    assert [tool for tool, *_ in own] == ['tools/test.py', 'tools/analysis_tools/benchmark_inference.py']
    for tool, *arguments in own:
        runpy.run_path(str(REPOSITORY / tool))['parse_args'](arguments)


@pytest.mark.slow
@pytest.mark.parametrize('options', [[], ['--optimize'], ['--optimize', 'bfloat16'], ['--optimize', '--tta']])
def test_page__evaluation(options, config, monkeypatch):
    write_mini_panoptic(config / 'data', 1, 3, 65, 0)
    tool = runpy.run_path(str(REPOSITORY / 'tools' / 'test.py'))
    arguments = [
        str(config / 'tiny.py'),
        str(config / 'tiny.pth'), '--work-dir',
        str(config / 'work'), '--out',
        str(config / 'metrics.json'), *options, '--cfg-options',
        f'test_dataloader.dataset.data_root={config}/data', 'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False', 'model.test_cfg.instance_on=False',
        'model.test_cfg.semantic_on=False'
    ]
    tool['main'](arguments)
    assert (config / 'metrics.json').exists()
