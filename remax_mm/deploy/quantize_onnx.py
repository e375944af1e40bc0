"""Static quantization of an exported model to int8 (QDQ) with onnxruntime."""
import json
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Union

import numpy as np

from .onnx_extra import import_onnx
from .remax_runtime import METADATA_KEY, PanopticModel, describe, load_image, merge

GROUP_DEPTH = 3
"""Parts of a module's name that make a group of layers in the search."""


class Quantization(NamedTuple):
    """Result of a quantization.

    Attributes:
        file: the quantized model.
        float_layers: names of the convolutions that stay in float32.
        num_quantized: number of quantized convolutions.
        equal_pixels: mean fraction of pixels with the same segment as in float32, on the images for the
            comparison.
        equal_pixels_of_groups: the same for each group of layers if it alone is quantized; empty without a
            search.
    """
    file: Path
    float_layers: List[str]
    num_quantized: int
    equal_pixels: float
    equal_pixels_of_groups: Dict[str, float]


def quantize_onnx(file: Union[str, Path],
                  out: Union[str, Path],
                  calibration_images: Sequence[Union[str, Path]],
                  comparison_images: Sequence[Union[str, Path]],
                  *,
                  keep_float: Sequence[str] = (),
                  search_above: Optional[float] = None) -> Quantization:
    """Quantize the convolutions of a model; weights per channel, activations per tensor, all symmetric.

    Args:
        file: model of :func:`export_onnx` in float32.
        out: the quantized model.
        calibration_images: images from which the ranges of the activations are measured.
        comparison_images: images on which the results are compared with float32.
        keep_float: starts of names of modules that stay in float32.
        search_above: fraction of equal pixels that must be reached. Groups of layers are then added, those
            that alone change the fewest pixels first, and a group is left out if the fraction falls below.
            None quantizes all groups.

    Raises:
        ImportError: the extra ``onnx`` is not installed.
        ValueError: the file is no float32 model of remax_mm, a name fits no layer, or no group reaches the
            fraction.
    """
    onnx = import_onnx()
    model = PanopticModel(file)
    if model.metadata.get('dtype', 'fp32') != 'fp32':
        raise ValueError(f'Expected a model in fp32, but {file} is in {model.metadata["dtype"]}')
    feeds = [feed_of(model, path) for path in calibration_images]
    layers = [node.name for node in onnx.load(str(model.path)).graph.node if node.op_type == 'Conv']
    unknown = [name for name in keep_float if not any(layer.startswith(name) for layer in layers)]
    if unknown:
        raise ValueError(f'Expected names of modules with convolutions, but no layer of {file} starts with '
                         f'{unknown}')
    free = [layer for layer in layers if not layer.startswith(tuple(keep_float) or ('\0', ))]

    comparison = Comparison(model, comparison_images)
    quantizer = Quantizer(model, feeds, layers)
    scores: Dict[str, float] = {}
    if search_above is not None:
        free, scores = search(quantizer, comparison, free, search_above)
    quantizer.write(free, Path(out))
    float_layers = [layer for layer in layers if layer not in free]
    return Quantization(Path(out), float_layers, len(free), comparison.equal_pixels(out), scores)


def feed_of(model: PanopticModel, path: Union[str, Path]) -> Dict[str, np.ndarray]:
    """Inputs of the graph for an image file."""
    pixels = load_image(path)
    feeds = dict(image=model.resize(pixels)[None])
    if model.metadata['outputs'] == 'slots':
        feeds['output_size'] = np.array(feeds['image'].shape[1:3], dtype=np.int64)
    return feeds


class Quantizer:
    """Quantizes some layers of a model, with ranges from the same images each time.

    Args:
        model: in float32.
        feeds: inputs of the graph.
        layers: names of all layers that can be quantized.
    """

    def __init__(self, model: PanopticModel, feeds: Sequence[Dict[str, np.ndarray]],
                 layers: Sequence[str]) -> None:
        self.model = model
        self.feeds = feeds
        self.layers = layers

    def write(self, layers: Sequence[str], out: Path) -> None:
        """Write a model in which these layers are quantized."""
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

        class Reader(CalibrationDataReader):
            """Gives the feeds one by one."""

            def __init__(self, feeds: Sequence[Dict[str, np.ndarray]]) -> None:
                self.feeds: Iterator = iter(feeds)

            def get_next(self) -> Optional[Dict[str, np.ndarray]]:
                return next(self.feeds, None)

        out.parent.mkdir(parents=True, exist_ok=True)
        quantize_static(
            str(self.model.path),
            str(out),
            Reader(self.feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=['Conv'],
            nodes_to_quantize=list(layers),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options=dict(ActivationSymmetric=True, WeightSymmetric=True))
        onnx = import_onnx()
        proto = onnx.load(str(out))
        float_layers = [layer for layer in self.layers if layer not in set(layers)]
        metadata = dict(self.model.metadata, dtype='int8', float_layers=float_layers)
        onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(metadata)})
        onnx.save(proto, str(out))


class Comparison:
    """Compares the results of a quantized model with those in float32.

    Args:
        model: in float32.
        images: files.
    """

    def __init__(self, model: PanopticModel, images: Sequence[Union[str, Path]]) -> None:
        self.images = list(images)
        self.expected = [result_of(model, path) for path in self.images]

    def equal_pixels(self, file: Union[str, Path]) -> float:
        """Mean fraction of pixels with the same segment, or the same best slot if the model gives logits."""
        model = PanopticModel(file)
        equal = [
            float((result_of(model, path) == expected).mean())
            for path, expected in zip(self.images, self.expected)
        ]
        return float(np.mean(equal))


def result_of(model: PanopticModel, path: Union[str, Path]) -> np.ndarray:
    """Class of the segment at each pixel (H, W), or the best slot (h, w) if the model gives logits."""
    pixels = load_image(path)
    outputs = model.run(model.resize(pixels), pixels.shape[:2])
    if model.metadata['outputs'] == 'logits':
        return outputs['mask_logits'].argmax(0)
    segment_map, segments_info = describe(*merge(outputs, model.metadata), model.classes, 0.)
    labels = [len(model.classes), *(segment['label'] for segment in segments_info)]
    return np.array(labels)[segment_map]


def search(quantizer: Quantizer, comparison: Comparison, layers: Sequence[str], limit: float) -> Any:
    """Find the layers that can be quantized.

    Returns:
        The layers, and the fraction of equal pixels of each group alone.

    Raises:
        ValueError: no group reaches the limit.
    """
    groups: Dict[str, List[str]] = {}
    for layer in layers:
        groups.setdefault(group_of(layer), []).append(layer)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / 'trial.onnx'

        def measure(names: Sequence[str]) -> float:
            quantizer.write([layer for name in names for layer in groups[name]], trial)
            return comparison.equal_pixels(trial)

        scores = {name: measure([name]) for name in groups}
        chosen: List[str] = []
        for name in sorted(groups, key=lambda name: -scores[name]):
            if measure([*chosen, name]) >= limit:
                chosen.append(name)
    if not chosen:
        raise ValueError(
            f'Expected a group of layers that keeps {limit:.1%} of the pixels equal, but the best of '
            f'{len(groups)} keeps {max(scores.values()):.1%}')
    return [layer for layer in layers if group_of(layer) in chosen], scores


def group_of(layer: str) -> str:
    """The first parts of a module's name, without the modules around the detector."""
    name = layer.rsplit('/', 1)[0].split('detector.', 1)[-1]
    return '.'.join(name.split('.')[:GROUP_DEPTH])
