import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from remax_mm.models.layers import AxialBlock, BottleneckBlock
from remax_mm.models.pixel_decoders.kmax_pixel_decoder import KMaXPixelDecoder, ResizedFuse, build_block_group
from tests.random_statistics import randomize_norms
from tests.reference_names import reference_names
from tests.reference_weights import reference_state_dict

IN_CHANNELS = (4, 6, 10, 12)


def _decoder(**options):
    settings = dict(channels=(24, 16, 8, 8), num_blocks=(1, 2, 1, 1))
    return KMaXPixelDecoder(IN_CHANNELS, **{**settings, **options})


def _features(height=33, width=65, batch_size=2, dtype=torch.float32):
    return [
        torch.randn(batch_size, channels, (height - 1) // stride + 1, (width - 1) // stride + 1, dtype=dtype)
        for channels, stride in zip(IN_CHANNELS, (4, 8, 16, 32))
    ]


def test_kmax_pixel_decoder__reference_numbers(reference_dir):
    decoder = KMaXPixelDecoder([256, 512, 1024, 2048], num_blocks=[1, 1, 1, 1])
    weights = decoder.state_dict()
    listed = json.loads((reference_dir / 'head_weights_spec.json').read_text())
    names = reference_names(weights, listed, prefix='panoptic_head.pixel_decoder.')
    decoder.load_state_dict(reference_state_dict(names, weights))
    decoder.double().eval()
    inputs = np.load(reference_dir / 'head_inputs.npz')
    with torch.no_grad():
        outputs = decoder(
            [torch.from_numpy(inputs[name]).double() for name in ('res2', 'res3', 'res4', 'res5')])

    # In float64 our rounding error is negligible; the tolerance is that of the reference in float32.
    rounding = json.loads(
        (reference_dir / 'head_eval_info.json').read_text())['max_abs_error_float32_vs_float64']
    expected = np.load(reference_dir / 'head_eval_features.npz')
    for name, output, error in zip(('os32', 'os16', 'os8', 'os4'), outputs,
                                   [*rounding['ms'], rounding['pan']]):
        assert np.abs(expected[name] - output.numpy()).max() <= 1.05 * error


def test_kmax_pixel_decoder__shapes_of_deeplab2():
    # Tests of deeplab2: 2048, 1024, 512 and 256 channels at sizes 21, 41, 81 and 161, for images of size 641
    with torch.device('meta'):
        decoder = KMaXPixelDecoder([256, 512, 1024, 2048])
        features = [torch.empty(1, c, s, s) for c, s in ((256, 161), (512, 81), (1024, 41), (2048, 21))]
    assert decoder.out_channels == [2048, 1024, 512, 256]
    assert [len(stage) for stage in decoder.stages] == [1, 5, 1, 1]
    assert [type(stage[0]) for stage in decoder.stages] == [AxialBlock] * 2 + [BottleneckBlock] * 2
    outputs = decoder.eval()(features)
    assert [tuple(output.shape) for output in outputs] == [(1, 2048, 21, 21), (1, 1024, 41, 41),
                                                           (1, 512, 81, 81), (1, 256, 161, 161)]


@pytest.mark.parametrize('size', [(33, 65), (65, 33), (1, 129), (64, 96)])
def test_kmax_pixel_decoder__any_input_size(size):
    features = _features(*size)
    outputs = _decoder().eval()(features)
    assert [output.shape[1] for output in outputs] == [96, 64, 32, 32]
    assert [output.shape[-2:] for output in outputs] == [feature.shape[-2:] for feature in reversed(features)]


def test_kmax_pixel_decoder__forward_by_hand():
    decoder = randomize_norms(_decoder()).double().eval()
    features = _features(dtype=torch.float64)
    res2, res3, res4, res5 = [
        F.layer_norm(f.permute(0, 2, 3, 1), f.shape[1:2], norm.weight, norm.bias, 1e-6).permute(0, 3, 1, 2)
        for f, norm in zip(features, reversed(decoder.input_norms))
    ]

    def enlarge(x, like):
        return F.interpolate(x, like.shape[-2:], mode='bilinear', align_corners=True)

    os32 = decoder.stages[0](res5)
    # Both inputs of each fusion are activated and projected, because their channels are not the stage's.
    first, second, third = decoder.fuses
    os16 = decoder.stages[1](enlarge(first.coarse[1](F.gelu(os32)), res4) + first.fine[1](F.gelu(res4)))
    os8 = decoder.stages[2](enlarge(second.coarse[1](F.gelu(os16)), res3) + second.fine[1](F.gelu(res3)))
    os4 = decoder.stages[3](enlarge(third.coarse[1](F.gelu(os8)), res2) + third.fine[1](F.gelu(res2)))
    for output, expected in zip(decoder(features), (os32, os16, os8, os4)):
        torch.testing.assert_close(output, expected)


def test_kmax_pixel_decoder__two_features_of_one_stride():
    """The stages follow the order of the features, as in the released Cityscapes models."""
    decoder = KMaXPixelDecoder([6, 2, 10, 12], (12, 8, 2, 3), (1, 1, 1, 1), ['bottleneck'] * 4)
    decoder = randomize_norms(decoder).double().eval()
    features = [torch.randn(1, *shape, dtype=torch.float64) for shape in ((6, 9, 9), (2, 9, 9), (10, 5, 5))]
    features.append(torch.randn(1, 12, 3, 3, dtype=torch.float64))
    outputs = decoder(features)
    assert [tuple(output.shape[1:]) for output in outputs] == [(48, 3, 3), (32, 5, 5), (8, 9, 9), (12, 9, 9)]

    # The fine input of the third fusion is not projected. The coarse input of the last one is not resized.
    norms = decoder.input_norms
    third, last = decoder.fuses[1:]
    enlarged = F.interpolate(third.coarse[1](F.gelu(outputs[1])), (9, 9), mode='bilinear', align_corners=True)
    torch.testing.assert_close(outputs[2], decoder.stages[2](enlarged + norms[2](features[1])))
    fine = last.fine[1](F.gelu(norms[3](features[0])))
    torch.testing.assert_close(outputs[3], decoder.stages[3](last.coarse[1](F.gelu(outputs[2])) + fine))


def test_resized_fuse__equal_channels_are_only_resized():
    fuse = ResizedFuse(6, 4, 6)
    assert isinstance(fuse.coarse, nn.Identity)
    fuse = randomize_norms(fuse).eval()
    coarse, fine = torch.randn(2, 6, 2, 3), torch.randn(2, 4, 3, 5)
    expected = F.interpolate(coarse, (3, 5), mode='bilinear', align_corners=True) + fuse.fine[1](F.gelu(fine))
    torch.testing.assert_close(fuse(coarse, fine), expected)


def test_kmax_pixel_decoder__images_are_independent_in_eval():
    decoder = randomize_norms(_decoder()).double().eval()
    features = _features(dtype=torch.float64)
    outputs = decoder(features)
    for image in range(2):
        alone = decoder([feature[image:image + 1] for feature in features])
        for output, expected in zip(outputs, alone):
            torch.testing.assert_close(output[image:image + 1], expected)


@pytest.mark.parametrize('norm_cfg', [dict(type='GN', num_groups=32), dict(type='GN', num_groups=3)])
def test_kmax_pixel_decoder__group_norm_with_one_image(norm_cfg):
    decoder = _decoder(channels=(24, 16, 8, 8), norm_cfg=norm_cfg)
    outputs = decoder(_features(batch_size=1))
    sum(output.square().mean() for output in outputs).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in decoder.parameters())


def test_kmax_pixel_decoder__lists_of_different_lengths():
    with pytest.raises(ValueError, match="one entry per stage .*'num_blocks': 3"):
        _decoder(num_blocks=(1, 1, 1))
    with pytest.raises(ValueError, match="one entry per stage .*'in_channels': 4, 'channels': 5"):
        _decoder(channels=(24, 16, 8, 8, 8))


def test_kmax_pixel_decoder__stage_without_blocks():
    with pytest.raises(ValueError, match=r'at least one block .*\(1, 0, 1, 1\)'):
        _decoder(num_blocks=(1, 0, 1, 1))


def test_kmax_pixel_decoder__unknown_block_type():
    with pytest.raises(ValueError, match="block type among .* but got 'axail'"):
        _decoder(block_types=('axail', 'axial', 'bottleneck', 'bottleneck'))


def test_build_block_group__types_and_widths():
    group = build_block_group('axial', 3, in_channels=24, base_channels=8)
    assert [type(block) for block in group] == [AxialBlock] * 3
    assert [isinstance(block.shortcut, nn.Identity) for block in group] == [False, True, True]
    assert group(torch.randn(2, 24, 3, 3)).shape == (2, 32, 3, 3)
    assert type(build_block_group('bottleneck', 1, 8, 8)[0]) is BottleneckBlock


def test_build_block_group__unknown_type():
    with pytest.raises(ValueError, match=r"among \['axial', 'bottleneck'\], but got 'dual_path'"):
        build_block_group('dual_path', 1, 8, 8)
