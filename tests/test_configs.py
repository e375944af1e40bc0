"""Every model config builds, and the ReMaX ones are their kMaX parents plus the relaxations."""
import copy
from pathlib import Path
from typing import Dict

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from remax_mm.analysis.complexity import count_parameters, inference_copy
from tests.conftest import REPOSITORY

CONFIGS = sorted(p for p in (REPOSITORY / 'configs').rglob('*.py') if '_base_' not in p.parts)

# Table 12 of arXiv 2306.17319 to the last digit, as counted on deeplab2's layer sizes.
PARAMETERS: Dict[str, int] = {
    'remax-t_mnv3-s_8xb8-150k_coco-641': 18_628_000,
    'remax-s_mnv3-l_8xb8-150k_coco-641': 21_997_440,
    'remax-m_r50_8xb8-150k_coco-641': 50_788_816,
    'remax-b_r50_8xb8-50k_coco-1281': 56_580_120,
}


def _build(path: Path) -> torch.nn.Module:
    """The model of a config, without asking for pretrained weights."""
    config = Config.fromfile(path)
    config.model.backbone.pop('init_cfg', None)
    init_default_scope('mmdet')
    return MODELS.build(config.model)


def _config(name: str) -> Path:
    return next(path for path in CONFIGS if path.stem == name)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config__has_a_recipe_card_and_little_else(path):
    card = path.read_text().split('"""')[1]
    assert 'Train:' in card and 'Hardware:' in card
    assert path.name in card
    body = path.read_text().split('"""', 2)[2]
    if Config.fromfile(path)._cfg_dict and "_base_ = '" in body:  # a child
        assert sum(bool(line.strip()) for line in body.splitlines()) <= 30


@pytest.mark.parametrize('name', PARAMETERS)
def test_config__parameters_at_inference(name):
    assert count_parameters(inference_copy(_build(_config(name)))) == PARAMETERS[name]


@pytest.mark.parametrize(
    'path', [p for p in CONFIGS if p.stem.startswith('remax')], ids=lambda path: path.stem)
def test_remax_config__is_its_kmax_parent_at_inference(path):
    """Same parameters by name and shape, and with the same weights bit for bit the same predictions."""
    config = Config.fromfile(path)
    decoder = config.model.panoptic_head.transformer_decoder
    plain = copy.deepcopy(config)
    plain.model.panoptic_head.transformer_decoder.pop('remask')
    plain.model.panoptic_head.transformer_decoder.num_relaxed = 0
    plain.model.panoptic_head.criterion.pop('reclass')
    plain.model.panoptic_head.criterion.pop('loss_stage_sem')
    assert decoder.num_relaxed > 0
    for model in (config.model, plain.model):
        model.backbone.pop('init_cfg', None)

    init_default_scope('mmdet')
    remax = MODELS.build(config.model).eval()
    kmax = inference_copy(MODELS.build(plain.model))
    stripped = inference_copy(remax)
    assert {k: v.shape for k, v in stripped.state_dict().items()} == \
        {k: v.shape for k, v in kmax.state_dict().items()}

    kmax.load_state_dict(stripped.state_dict())
    image = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        ours, theirs = remax(image, mode='tensor'), kmax(image, mode='tensor')
    for a, b in zip(ours, theirs):
        assert a.relaxed_mask_logits is None and a.sem_logits is None
        assert torch.equal(a.class_logits, b.class_logits)
        assert torch.equal(a.mask_logits, b.mask_logits)
