"""A whole model against numbers measured on the public kMaX-DeepLab PyTorch code, with the same weights."""
import json

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS

from tests.golden import golden_state_dict
from tests.reference_names import reference_model_names

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def model():
    model = MODELS.build(
        dict(
            type='KMaXDeepLab',
            backbone=dict(type='ResNet', depth=50, norm_cfg=dict(type='BN', eps=1e-3, momentum=0.01)),
            panoptic_head=dict(
                type='KMaXHead',
                num_things_classes=80,
                num_stuff_classes=53,
                pixel_decoder=dict(type='KMaXPixelDecoder', in_channels=[256, 512, 1024, 2048]),
                transformer_decoder=dict(
                    type='KMaXTransformerDecoder', in_channels=[2048, 1024, 512, 256], num_slots=128)),
            panoptic_fusion_head=dict(type='KMaXFusionHead', num_things_classes=80, num_stuff_classes=53)))
    weights = model.state_dict()
    model.load_state_dict(golden_state_dict(reference_model_names(weights), weights, rule='C'))
    return model.eval()


def test_kmax_deeplab__keys_of_the_published_checkpoint(reference_dir, model):
    listed = json.loads((reference_dir / 'golden' / 'keys_r50_coco.json').read_text())
    weights = model.state_dict()
    shapes = {theirs: list(weights[ours].shape) for ours, theirs in reference_model_names(weights).items()}
    assert shapes == {
        key: shape
        for key, shape in listed.items() if '_auxiliary_semantic_predictor.' not in key
    }


def test_kmax_deeplab__parameters_of_the_inference_network(model):
    assert sum(parameter.numel() for parameter in model.parameters()) == 56_580_120


def test_kmax_deeplab__is_the_reference(reference_dir, model):
    expected = np.load(reference_dir / 'golden' / 'whole_r50_coco.npz')
    size = int(expected['size'])
    image = np.random.RandomState(int(expected['seed'])).randint(0, 256,
                                                                 (1, 3, size, size)).astype(np.float32)
    with torch.no_grad():
        predictions = model((torch.from_numpy(image) - 127.5) / 127.5, mode='tensor')
    assert len(predictions) == 7

    final = predictions[-1]
    outputs = dict(
        class_logits=final.class_logits,
        mask_logits_every8=final.mask_logits[:, ::8],
        pixel_feature_sum=final.pixel_feature.sum((2, 3)),
        aux0_class=predictions[0].class_logits)
    for name, output in outputs.items():
        torch.testing.assert_close(output, torch.from_numpy(expected[name]), atol=1e-4, rtol=0)
    assert (final.mask_logits.argmax(1).numpy() == expected['argmax']).all()
