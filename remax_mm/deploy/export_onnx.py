"""Export of a detector to ONNX."""
import ast
import json
import logging
import re
import traceback
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn

from remax_mm.version import __version__
from .float16 import convert_to_float16
from .onnx_extra import import_onnx
from .onnx_network import Logits, LogitsNetwork, SlotNetwork, merging_of
from .remax_runtime import FORMAT, METADATA_KEY
from .slot_outputs import SlotOutputs

DEFAULT_OPSET = 20
"""The first with GELU as one operator."""
MAX_BATCH_SIZE = 64
SMALLEST_SIDE = 2
"""Of an image in pixels; the export needs a limit."""


class ResizeStep(NamedTuple):
    """Resizing of images before they go to the network, bilinear as in OpenCV.

    Attributes:
        scale: (width, height).
        keep_ratio: whether the image is resized to fit into ``scale``, or exactly to it.
    """
    scale: Tuple[int, int]
    keep_ratio: bool


def export_onnx(model: nn.Module,
                file: Union[str, Path],
                *,
                classes: Sequence[str],
                num_things: int,
                palette: Optional[Sequence[Sequence[int]]],
                resize: ResizeStep,
                input_size: Tuple[int, int],
                logits: bool = False,
                dtype: str = 'fp32',
                opset: int = DEFAULT_OPSET) -> Dict[str, Any]:
    """Write a detector as an ONNX file with metadata.

    Args:
        model: detector with trained weights; it is not changed.
        file: the ONNX file.
        classes: names of the K classes, things first.
        num_things: number of thing classes.
        palette: RGB colors of the classes, None for none.
        resize: how images are resized before; a network with a head of mmdet takes one size only, to which
            they are resized instead.
        input_size: (height, width) to which the graph pads images.
        logits: whether the graph ends with :class:`Logits`, not with :class:`SlotOutputs`.
        dtype: ``fp32`` or ``fp16``, of the network; the merging is always in float32.
        opset: version of the ONNX operators.

    Returns:
        The metadata.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime is missing; names the extra.
        ValueError: the model cannot be exported in this way; names the module with an unsupported operator.
    """
    onnx = import_onnx()
    logits_network = LogitsNetwork(model, input_size)
    is_fixed = not logits_network.takes_any_size
    if is_fixed:
        resize = ResizeStep((input_size[1], input_size[0]), keep_ratio=False)
    merging, thresholds = ('', {}) if logits else merging_of(model)
    network: nn.Module = logits_network
    names = Logits._fields
    if not logits:
        network = SlotNetwork(logits_network, merging, thresholds)
        names = SlotOutputs._fields[:7 if merging == 'mask-wise' else 6]
    metadata = dict(
        format=FORMAT,
        version=__version__,
        dtype=dtype,
        outputs='logits' if logits else 'slots',
        merging=merging,
        thresholds=thresholds,
        classes=list(classes),
        num_things=num_things,
        palette=None if palette is None else [[int(channel) for channel in color] for color in palette],
        input=dict(
            layout='NHWC',
            colors='RGB',
            dtype='uint8',
            height=input_size[0],
            width=input_size[1],
            is_fixed=is_fixed),
        resize=dict(scale=list(resize.scale), keep_ratio=resize.keep_ratio, interpolation='bilinear, OpenCV'))

    proto = to_onnx(network.eval(), names, input_size, is_fixed, opset)
    if dtype == 'fp16':
        proto = convert_to_float16(proto, network)
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(metadata)})
    onnx.checker.check_model(proto, full_check=True)
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, str(file))
    return metadata


def to_onnx(network: nn.Module, names: Sequence[str], input_size: Tuple[int, int], is_fixed: bool,
            opset: int) -> Any:
    """An ``onnx.ModelProto`` of a network; each node has the name of its module.

    Raises:
        ValueError: an operator cannot be exported; names the module.
    """
    dim = torch.export.Dim
    image = torch.zeros(1, *input_size, 3, dtype=torch.uint8)
    shapes: List[Any] = [None]
    if not is_fixed:
        # All of these sizes differ, so that none is taken for another one or for a constant.
        image = torch.zeros(2, input_size[0] - 1, input_size[1] - 2, 3, dtype=torch.uint8)
        sides = [
            dim(name, min=SMALLEST_SIDE, max=side) for name, side in zip(('height', 'width'), input_size)
        ]
        shapes = [{0: dim('batch', min=1, max=MAX_BATCH_SIZE), 1: sides[0], 2: sides[1]}]
    example: Tuple[Tensor, ...] = (image, )
    input_names = ['image']
    if isinstance(network, SlotNetwork):
        example += (torch.tensor([input_size[0] + 3, input_size[1] + 5]), )
        shapes.append(None)
        input_names.append('output_size')

    with quiet():
        try:
            with torch.no_grad():
                program = torch.export.export(network, example, dynamic_shapes=tuple(shapes), strict=False)
        except Exception as error:  # torch raises many types of errors here
            raise _unsupported(error, module_of_traceback(network, error)) from error
        try:
            exported: Any = torch.onnx.export(
                program,
                input_names=input_names,
                output_names=list(names),
                opset_version=opset,
                dynamo=True,
                verbose=False)
        except Exception as error:
            raise _unsupported(error, module_of_operator(program, error)) from error
    return clean(exported.model_proto)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the exporter's messages about torchvision and about its own use of torch."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)


def _unsupported(error: Exception, module: str) -> ValueError:
    innermost = list(causes(error))[-1]
    reason = next((line for line in str(innermost).splitlines() if line.strip()), type(innermost).__name__)
    return ValueError(
        f'Expected operators that can be exported to ONNX, but {module} has another one: {reason}')


def module_of_traceback(network: nn.Module, error: Exception) -> str:
    """Name of the innermost module in which an error was raised."""
    names = {id(module): name for name, module in network.named_modules()}
    frames = [frame.f_locals.get('self') for frame, _ in traceback.walk_tb(error.__traceback__)]
    inside = [module for module in frames if names.get(id(module))]
    return f'`{names[id(inside[-1])]}` ({type(inside[-1]).__name__})' if inside else 'the network'


def module_of_operator(program: torch.export.ExportedProgram, error: BaseException) -> str:
    """Name of the first module with the operator that an error of the exporter names."""
    named = re.search(r"op='([\w.]+)'", ' '.join(str(cause) for cause in causes(error)))
    if named is None:
        return 'the network'
    for node in program.run_decompositions().graph.nodes:
        stack = node.meta.get('nn_module_stack')
        if stack and str(node.target).startswith(named.group(1)):
            path, kind = list(stack.values())[-1]
            return f'`{path}` ({str(kind).rsplit(".", 1)[-1]})'
    return 'the network'


def causes(error: Optional[BaseException]) -> Iterator[BaseException]:
    """An error and the errors that caused it."""
    while error is not None:
        yield error
        error = error.__cause__


def clean(proto: Any) -> Any:
    """Name nodes after their modules and sizes after their meaning, and remove lines of source code."""
    graph = proto.graph
    for number, node in enumerate(graph.node):
        stored = {item.key: item.value for item in node.metadata_props}
        scopes = ast.literal_eval(stored.get('pkg.torch.onnx.name_scopes', '[]'))[:-1]
        node.name = '/'.join([*scopes[-1:], f'{node.op_type}_{number}'])
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ''
    del graph.value_info[:]

    dims = graph.input[0].type.tensor_type.shape.dim
    names = {dims[axis].dim_param: name for axis, name in enumerate(('batch', 'height', 'width'))}
    for value in (*graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        for dim in dims:
            if dim.dim_param:
                dim.dim_param = names.get(dim.dim_param, dim.dim_param)
        if value.name in ('slots', 'probabilities'):
            dims[2].dim_param, dims[3].dim_param = 'output_height', 'output_width'
    return proto
