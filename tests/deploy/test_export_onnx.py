"""Export of small models; an export takes about 20 seconds."""
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image
from torch import nn

from tests.tiny_model import NUM_THINGS, detector_config

onnx = pytest.importorskip('onnx', reason='needs the extra onnx')
pytest.importorskip('onnxruntime', reason='needs the extra onnx')
pytest.importorskip('onnxscript', reason='needs the extra onnx')
from remax_mm.apis import PanopticInferencer  # noqa: E402
from remax_mm.apis.export_model import draw_images, export_model, input_of  # noqa: E402
from remax_mm.deploy.check_onnx import MIN_EQUAL_FLOAT16, check_onnx  # noqa: E402
from remax_mm.deploy.export_onnx import to_onnx  # noqa: E402
from remax_mm.deploy.float16 import convert_to_float16  # noqa: E402
from remax_mm.deploy.onnx_network import LogitsNetwork, SlotNetwork, merging_of  # noqa: E402
from remax_mm.deploy.quantize_onnx import quantize_onnx  # noqa: E402
from remax_mm.deploy.remax_runtime import PanopticModel  # noqa: E402
from tests.deploy.tensorrt_operators import SUPPORTED  # noqa: E402

CLASSES = tuple('abcde')


def _config(**model_options) -> Config:
    model = detector_config(**model_options)
    model['test_cfg'].update(pixel_threshold=0.35, instance_on=False, semantic_on=False)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(65, 65), keep_ratio=True),
        dict(type='LoadSegmentIds'),
        dict(type='PackPanopticInputs')
    ]
    meta = dict(classes=CLASSES, thing_classes=CLASSES[:NUM_THINGS], stuff_classes=CLASSES[NUM_THINGS:])
    dataset = dict(type='PanopticMapDataset', metainfo=meta, data_prefix=dict(img=''), pipeline=pipeline)
    return Config(dict(default_scope='mmdet', model=model, test_dataloader=dict(dataset=dataset)))


def _write_checkpoint(config: Config, path: Path) -> str:
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config.model)
    # Steep masks, so that slots exceed the pixel threshold before any training
    model.panoptic_head.transformer_decoder.predictor.mask_norm.weight.data.fill_(20.)
    torch.save(dict(state_dict=model.state_dict()), path)
    return str(path)


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """Config, checkpoint and the folder of the export."""
    folder = tmp_path_factory.mktemp('exported')
    config = _config()
    checkpoint = _write_checkpoint(config, folder / 'weights.pth')
    export_model(config, checkpoint, folder / 'deployed')
    return config, checkpoint, folder / 'deployed'


@pytest.mark.slow
def test_export_model__runs_in_a_folder(exported, tmp_path):
    config, checkpoint, folder = exported
    assert sorted(path.name for path in folder.iterdir()) == ['README.md', 'model.onnx', 'remax_runtime.py']
    inferencer = PanopticInferencer(config, checkpoint, device='cpu')
    model = PanopticModel(folder)
    assert model.metadata['classes'] == list(CLASSES) and model.metadata['num_things'] == NUM_THINGS
    num_segments = 0
    for image in draw_images():
        expected = next(iter(inferencer.stream(np.ascontiguousarray(image[..., ::-1]))))
        result = model(image)
        assert (result.segment_map == expected.segment_map).mean() >= 0.999
        labels = [[segment['label'] for segment in each.segments_info] for each in (result, expected)]
        assert labels[0] == labels[1]
        num_segments += len(result.segments_info)
    assert num_segments > 0


@pytest.mark.slow
def test_export_model__takes_any_batch_and_size(exported):
    *_, folder = exported
    session = PanopticModel(folder).session
    images = np.random.randint(0, 256, (3, 40, 64, 3), dtype=np.uint8)
    size = np.array([33, 50])
    batch = session.run(None, dict(image=images, output_size=size))
    for index in range(3):
        single = session.run(None, dict(image=images[index:index + 1], output_size=size))
        for together, alone in zip(batch, single):
            np.testing.assert_allclose(together[index], alone[0], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_export_model__operators_of_tensorrt(exported):
    *_, folder = exported
    proto = onnx.load(str(folder / 'model.onnx'))
    assert {node.op_type for node in proto.graph.node} <= SUPPORTED
    assert proto.opset_import[0].version <= 24
    sorted_attributes = [
        attribute.i for node in proto.graph.node if node.op_type == 'TopK' for attribute in node.attribute
        if attribute.name == 'sorted'
    ]
    assert set(sorted_attributes) <= {1}


@pytest.mark.slow
def test_convert_to_float16__agrees(exported, tmp_path):
    config, checkpoint, folder = exported
    model = PanopticInferencer(config, checkpoint, device='cpu').model
    network = SlotNetwork(LogitsNetwork(model, (65, 65)), *merging_of(model))
    proto = convert_to_float16(onnx.load(str(folder / 'model.onnx')), network)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, str(tmp_path / 'half.onnx'))
    assert (tmp_path / 'half.onnx').stat().st_size < 0.75 * (folder / 'model.onnx').stat().st_size
    kinds = {
        weight.data_type
        for weight in proto.graph.initializer if weight.dims and np.prod(weight.dims) > 64
    }
    assert onnx.TensorProto.FLOAT16 in kinds
    check_onnx(model, tmp_path / 'half.onnx', draw_images(), MIN_EQUAL_FLOAT16)


@pytest.mark.slow
def test_check_onnx__refuses_other_weights(exported):
    config, checkpoint, folder = exported
    model = PanopticInferencer(config, checkpoint, device='cpu').model
    model.panoptic_head.transformer_decoder.cluster_centers.data.mul_(-1)
    with pytest.raises(ValueError, match='Expected at least 99.9% of the pixels to be equal'):
        check_onnx(model, folder / 'model.onnx', draw_images(), 0.999)


@pytest.mark.slow
def test_quantize_onnx__search_leaves_layers_out(exported, tmp_path):
    *_, folder = exported
    files = []
    for number, image in enumerate(draw_images()):
        files.append(tmp_path / f'{number}.png')
        Image.fromarray(image).save(files[-1])
    out = tmp_path / 'int8.onnx'
    everything = quantize_onnx(folder, out, files, files)
    assert everything.float_layers == [] and everything.num_quantized > 50
    assert out.stat().st_size < (folder / 'model.onnx').stat().st_size
    metadata = PanopticModel(out).metadata
    assert metadata['dtype'] == 'int8' and metadata['classes'] == list(CLASSES)

    kept = quantize_onnx(folder, out, files, files, keep_float=['network.detector.panoptic_head'])
    assert kept.float_layers and all('panoptic_head' in layer for layer in kept.float_layers)
    assert PanopticModel(out).metadata['float_layers'] == kept.float_layers
    quantized = {
        node.input[0]
        for node in onnx.load(str(out)).graph.node if node.op_type == 'DequantizeLinear'
    }
    assert quantized
    with pytest.raises(ValueError, match='no layer of .* starts with'):
        quantize_onnx(folder, out, files, files, keep_float=['nowhere'])
    with pytest.raises(ValueError, match='Expected a model in fp32, but .* is in int8'):
        quantize_onnx(out, tmp_path / 'twice.onnx', files, files)


@pytest.mark.slow
def test_program__in_an_environment_without_torch(exported, tmp_path):
    *_, folder = exported
    python = tmp_path / 'venv' / 'bin' / 'python'
    subprocess.run([sys.executable, '-m', 'venv', str(tmp_path / 'venv')], check=True)
    install = [str(python), '-m', 'pip', 'install', '--quiet', 'numpy', 'Pillow', 'onnxruntime']
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f'pip cannot install the packages: {done.stderr.splitlines()[-1:]}')
    image = draw_images()[1]
    Image.fromarray(image).save(tmp_path / 'photo.png')
    command = [str(python), str(folder / 'remax_runtime.py'), 'photo.png', '--out-dir', 'out']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={})
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / 'out' / 'photo.json').read_text())
    expected = PanopticModel(folder)(image).segments_info
    assert [s['class_name'] for s in content['segments_info']] == [s['class_name'] for s in expected]
    missing = subprocess.run([str(python), '-c', 'import torch'], capture_output=True)
    assert missing.returncode != 0


class _Eigenvalues(nn.Module):
    """Has an operator that ONNX lacks."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvalsh(image[:, :3, :3, 0].float())


class _Broken(nn.Module):
    """Has an operation that depends on the values."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image if image.sum() > 0 else image[:, :1]


@pytest.mark.slow
@pytest.mark.parametrize('module', [_Eigenvalues(), _Broken()])
def test_to_onnx__names_the_module(module):
    network = nn.Sequential(nn.Identity(), nn.Sequential(module))
    with pytest.raises(ValueError, match=rf'`1\.0` \({type(module).__name__}\)'):
        to_onnx(network, ['out'], (9, 9), True, 20)


def test_export_model__checkpoint_does_not_fill_the_model(tmp_path):
    config = _config()
    torch.save(dict(state_dict={'backbone.conv1.weight': torch.zeros(4, 3, 7, 7)}), tmp_path / 'part.pth')
    with pytest.raises(ValueError, match='part.pth'):
        export_model(config, str(tmp_path / 'part.pth'), tmp_path / 'model.onnx')
    assert not (tmp_path / 'model.onnx').exists()


def test_merging_of__threshold_of_more_than_two_slots():
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(detector_config())
    with pytest.raises(ValueError, match='`pixel_threshold` above 0.3343.*--logits'):
        merging_of(model)


def test_logits_network__other_size():
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(detector_config())
    with pytest.raises(ValueError, match=r'32k \+ 1 pixels.*\(64, 65\)'):
        LogitsNetwork(model, (64, 65))
    with pytest.raises(
            ValueError, match='Expected a detector with a panoptic head of remax_mm, but got Identity'):
        LogitsNetwork(nn.Identity(), (65, 65))


def test_input_of():
    config = _config()
    resize, size = input_of(config, None)
    assert resize == ((65, 65), True) and size == (65, 65)
    resize, size = input_of(config, (97, 129))
    assert resize == ((129, 97), True) and size == (97, 129)
    config.test_dataloader.dataset.pipeline.insert(1, dict(type='RandomFlip'))
    with pytest.raises(ValueError, match="steps .*'RandomFlip'"):
        input_of(config, None)


def test_network__has_no_training_parts():
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(detector_config())
    network = LogitsNetwork(model, (65, 65))
    names = {type(module).__name__ for module in network.modules()}
    assert {'PanopticCriterion', 'ASPPSemanticHead', 'ReMask'} <= {type(m).__name__ for m in model.modules()}
    assert not {'PanopticCriterion', 'ASPPSemanticHead', 'ReMask'} & names
