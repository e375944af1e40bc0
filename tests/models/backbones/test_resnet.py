"""The config with which mmdet's ResNet is the backbone R50 of kMaX-DeepLab."""
import json

import numpy as np
import torch
from mmdet.registry import MODELS

from tests.reference_names import reference_names
from tests.reference_weights import reference_state_dict

KMAX_R50 = dict(
    type='ResNet',
    depth=50,
    num_stages=4,
    out_indices=(0, 1, 2, 3),
    frozen_stages=-1,
    norm_cfg=dict(type='BN', eps=1e-3, momentum=0.01, requires_grad=True),
    norm_eval=False,
    style='pytorch')


def test_resnet__reference_numbers(reference_dir):
    backbone = MODELS.build(KMAX_R50)
    backbone.eval()
    weights = backbone.state_dict()
    listed = json.loads((reference_dir / 'keys_r50_coco.json').read_text())
    names = reference_names(weights, listed, prefix='backbone.')
    backbone.load_state_dict(reference_state_dict(names, weights))

    reference = np.load(reference_dir / 'backbone_r50.npz')
    with torch.no_grad():
        features = backbone(torch.from_numpy(reference['image']))
    for name, feature in zip(('res2', 'res3', 'res4', 'res5'), features):
        # The float32 rounding error of the reference is 1.3e-4 for values up to 108.
        torch.testing.assert_close(feature, torch.from_numpy(reference[name]), rtol=1e-5, atol=3e-4)


def test_resnet__trains_norms():
    backbone = MODELS.build(KMAX_R50)
    backbone.train()
    norms = [module for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(norms) == 53
    assert all(norm.training and norm.eps == 1e-3 and norm.momentum == 0.01 for norm in norms)
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 23_508_032
