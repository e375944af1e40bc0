"""An ONNX file, made by hand, that segments by color: the brightest channel of a pixel is its slot."""
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = ['cat', 'sky', 'grass']
METADATA = dict(
    format='remax_mm panoptic 1',
    version='0.0.0',
    dtype='fp32',
    outputs='slots',
    merging='pixel-wise',
    thresholds=dict(class_threshold=0.5, pixel_threshold=0.4, thing_area=0, stuff_area=0),
    classes=CLASSES,
    num_things=1,
    palette=[[200, 0, 0], [0, 0, 200], [0, 200, 0]],
    input=dict(layout='NHWC', colors='RGB', dtype='uint8', height=65, width=65, is_fixed=False),
    resize=dict(scale=[65, 65], keep_ratio=True, interpolation='bilinear, OpenCV'))


def write_color_model(path: Path, class_scores=(0.9, 0.8, 0.7), **changes) -> Path:
    """A model whose red, blue and green pixels are a cat, sky and grass; ``changes`` are to its metadata."""
    labels = dict(R=0, B=1, G=2)
    constants = dict(
        classes=np.array([[labels[channel] for channel in 'RGB']], dtype=np.int32),
        class_scores=np.array([[class_scores[labels[channel]] for channel in 'RGB']], dtype=np.float32),
        mask_scores=np.ones((1, 3), dtype=np.float32),
        one=np.ones(1, dtype=np.float32),
        first=np.array([1, 1], dtype=np.int64),
        slot_index=np.arange(3, dtype=np.int32).reshape(1, 3, 1, 1),
        axes=np.array([2, 3], dtype=np.int64),
    )
    nodes = [
        helper.make_node('Transpose', ['image'], ['channels'], perm=[0, 3, 1, 2]),
        helper.make_node('Cast', ['channels'], ['values'], to=TensorProto.FLOAT),
        helper.make_node('ArgMax', ['values'], ['best'], axis=1, keepdims=1),
        helper.make_node('Cast', ['best'], ['best_float'], to=TensorProto.FLOAT),
        helper.make_node('Concat', ['first', 'output_size'], ['size'], axis=0),
        helper.make_node('Resize', ['best_float', '', '', 'size'], ['resized'], mode='nearest'),
        helper.make_node('Cast', ['resized'], ['slots'], to=TensorProto.INT32),
        helper.make_node('Expand', ['one', 'size'], ['probabilities']),
        helper.make_node('Equal', ['slots', 'slot_index'], ['masks']),
        helper.make_node('Cast', ['masks'], ['counts'], to=TensorProto.INT32),
        helper.make_node('ReduceSum', ['counts', 'axes'], ['areas'], keepdims=0),
    ]
    nodes += [
        helper.make_node('Identity', [f'{name}_value'], [name])
        for name in ('classes', 'class_scores', 'mask_scores')
    ]
    renamed = {
        name: f'{name}_value' if name.endswith('scores') or name == 'classes' else name
        for name in constants
    }
    inputs = [
        helper.make_tensor_value_info('image', TensorProto.UINT8, [1, 'height', 'width', 3]),
        helper.make_tensor_value_info('output_size', TensorProto.INT64, [2])
    ]
    outputs = [
        helper.make_tensor_value_info(name, kind, None)
        for name, kind in (('slots', TensorProto.INT32), ('probabilities', TensorProto.FLOAT),
                           ('classes', TensorProto.INT32), ('class_scores', TensorProto.FLOAT),
                           ('areas', TensorProto.INT32), ('mask_scores', TensorProto.FLOAT))
    ]
    weights = [numpy_helper.from_array(value, renamed[name]) for name, value in constants.items()]
    graph = helper.make_graph(nodes, 'color', inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    metadata = {**METADATA, **changes}
    if metadata['format'] is not None:
        helper.set_model_props(model, dict(remax_mm=json.dumps(metadata)))
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def color_image(height: int = 40, width: int = 60) -> np.ndarray:
    """Sky (blue) above, grass (green) below, a cat (red) in the middle, (H, W, 3) uint8 RGB."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[:height // 2] = (0, 0, 255)
    image[height // 2:] = (0, 255, 0)
    image[height // 4:height // 2, width // 4:width // 2] = (255, 0, 0)
    return image
