"""A converted model compared with numbers of the public kMaX-DeepLab PyTorch code."""
import json

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import load_checkpoint

from remax_mm.analysis.complexity import count_parameters
from remax_mm.deploy.optimize import optimize_for_inference
from remax_mm.model_converters import convert_kmax
from remax_mm.models.inference_copy import inference_copy
from tests.conftest import REPOSITORY
from tests.reference_weights import reference_weight

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def model(reference_dir, tmp_path_factory):
    """The model of the config with the weights of a checkpoint file in the format of the reference."""
    folder = tmp_path_factory.mktemp('checkpoints')
    shapes = json.loads((reference_dir / 'keys_r50_coco.json').read_text())
    weights = {key: reference_weight(key, shape, rule='C') for key, shape in shapes.items()}
    torch.save(dict(model=weights), folder / 'theirs.pth')
    convert_kmax(folder / 'theirs.pth', folder / 'ours.pth', REPOSITORY / 'configs')

    model = MODELS.build(Config.fromfile(REPOSITORY / 'configs' / '_base_' / 'models' / 'kmax_r50.py').model)
    load_checkpoint(model, str(folder / 'ours.pth'), map_location='cpu', strict=True)
    return inference_copy(model)


def test_kmax_deeplab__parameters_of_the_inference_network(model):
    assert count_parameters(model) == 56_580_120


def test_kmax_deeplab__reference_predictions_if_optimized(reference_dir, model):
    expected = np.load(reference_dir / 'whole_r50_coco.npz')
    size = int(expected['size'])
    image = np.random.RandomState(int(expected['seed'])).randint(0, 256,
                                                                 (1, 3, size, size)).astype(np.float32)
    optimized = optimize_for_inference(model)
    assert not optimized.panoptic_head.report.kept
    with torch.no_grad():
        final = optimized((torch.from_numpy(image) - 127.5) / 127.5, mode='tensor')[-1]
    for name, output in (('class_logits', final.class_logits), ('mask_logits_every8',
                                                                final.mask_logits[:, ::8])):
        torch.testing.assert_close(output, torch.from_numpy(expected[name]), atol=1e-4, rtol=0)
    assert (final.mask_logits.argmax(1).numpy() == expected['argmax']).all()


def test_kmax_deeplab__reference_predictions(reference_dir, model):
    expected = np.load(reference_dir / 'whole_r50_coco.npz')
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
