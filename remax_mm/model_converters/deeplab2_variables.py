"""Weights of TensorFlow's kMaX-DeepLab (google-research/deeplab2), with our names, axes and class order.

The rows of the class head are things, stuff, void, each in the order of ids. The rows of the auxiliary
semantic head are the ids (data/dataset.py): 0 is void on COCO and ADE20K, and road on Cityscapes.
"""
import re
from typing import Callable, Dict, Mapping, NamedTuple, Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from .deeplab2_names import Encoder, find_encoder, rename_variable
from .kmax_release import CITYSCAPES, SEMANTIC_HEAD, ReleaseDataset, find_dataset

SUFFIX = '/.ATTRIBUTES/VARIABLE_VALUE'
NOT_WEIGHTS = re.compile(
    r'/\.OPTIMIZER_SLOT/|^(backbone_)?optimizer/|^(global_step|save_counter)/|^_CHECKPOINTABLE_OBJECT_GRAPH$')
CLASS_HEAD = 'transformer_class_head/_conv/bias'


class Layout(NamedTuple):
    """Order of the axes of some variables.

    Attributes:
        pattern: Pattern of their names in TensorFlow.
        num_axes: Their number of axes in TensorFlow, None for any.
        arrange: Turns TensorFlow's order of axes into torch's.
    """
    pattern: str
    num_axes: Optional[int]
    arrange: Callable[[Tensor], Tensor]


# The first layout that fits is used; other variables have the same axes in torch.
LAYOUTS = (
    # Height, width, channels, 1 -> channels, 1, height, width.
    Layout(r'/depthwise_kernel$', 4, lambda kernel: kernel.permute(2, 3, 0, 1)),
    # Convolutions of flattened pixels, which are 1x1 convolutions of the map here.
    Layout(r'/_pixel_(conv1_bn_act|v_conv_bn)/_conv/kernel$', 3,
           lambda kernel: kernel.permute(2, 1, 0)[..., None]),
    # Space, in, out -> out, in, space.
    Layout(r'/kernel$', 4, lambda kernel: kernel.permute(3, 2, 0, 1)),
    Layout(r'/kernel$', 3, lambda kernel: kernel.permute(2, 1, 0)),
    Layout(r'/kernel$', 2, lambda kernel: kernel.t()),
    Layout(r'/qkv_kernel$', 2, lambda kernel: kernel.t()[..., None]),
    # 1, slots, channels -> channels, slots.
    Layout(r'^transformer_decoder/cluster_centers$', 3, lambda centers: centers.permute(2, 1, 0).squeeze(-1)),
    # One value per channel, head or kind, with axes of length 1 between them.
    Layout(r'/(gamma|beta|moving_mean|moving_variance|layer_scale)$', None, lambda values: values.flatten()),
)  # yapf: disable


class Converted(NamedTuple):
    """Weights by our names, and the encoder and dataset of the checkpoint."""
    weights: Dict[str, Tensor]
    encoder: Encoder
    dataset: ReleaseDataset


def convert_variables(variables: Mapping[str, np.ndarray]) -> Converted:
    """Rename and rearrange the variables of a checkpoint, and put class outputs into our order.

    Args:
        variables: Variables by their names in the checkpoint, with or without :data:`SUFFIX`, without those
            that :data:`NOT_WEIGHTS` matches.

    Raises:
        ValueError: the variables are not those of kMaX-DeepLab, the encoder or the dataset is not supported,
            or two variables are the same weight.
    """
    short = {name: name[:-len(SUFFIX)] if name.endswith(SUFFIX) else name for name in variables}
    arrays = {short[name]: array for name, array in variables.items()}
    if CLASS_HEAD not in arrays:
        some = ', '.join(sorted(arrays)[:3]) or 'none'
        raise ValueError(f"Expected variables of deeplab2's kMaX-DeepLab, {CLASS_HEAD} among them, but found "
                         f'{len(arrays)} others, such as: {some}')
    dataset, encoder = find_dataset(arrays[CLASS_HEAD].size), find_encoder(arrays)
    class_rows, semantic_rows = find_rows(dataset)

    weights: Dict[str, Tensor] = {}
    for name, array in variables.items():
        ours, value = rename_variable(short[name], encoder), to_torch(short[name], array)
        if ours in weights:
            raise ValueError(f'Expected every weight once, but {name} is a second {ours}')
        if '.class_head.' in ours:
            value = _select(value, class_rows, name)
        elif ours.startswith(f'{SEMANTIC_HEAD}classifier.'):
            value = _select(value, semantic_rows, name)
        weights[ours] = value
    return Converted(weights, encoder, dataset)


def to_torch(name: str, array: np.ndarray) -> Tensor:
    """A variable of deeplab2 with torch's order of axes; unchanged if its number of axes is unexpected."""
    value = torch.from_numpy(np.require(array, np.float32, 'W'))
    for layout in LAYOUTS:
        if re.search(layout.pattern, name) and layout.num_axes in (None, value.dim()):
            return layout.arrange(value).contiguous()
    return value


def _select(value: Tensor, rows: Tensor, name: str) -> Tensor:
    outputs = int(rows.max()) + 1
    if value.shape[:1] != (outputs, ):
        raise ValueError(f'Expected {outputs} outputs of {name}, but got {tuple(value.shape[:1])}')
    return value[rows]


def find_rows(dataset: ReleaseDataset) -> Tuple[Tensor, Tensor]:
    """Row of deeplab2's class head for each row of ours (K + 1,), and the same for the semantic head (K,)."""
    first_id = 0 if dataset is CITYSCAPES else 1
    ids = {name: first_id + index for index, name in enumerate(dataset.classes)}
    things = dataset.metainfo['thing_classes']
    theirs = sorted(ids, key=lambda name: (name not in things, ids[name]))

    ours = dataset.metainfo['classes']
    class_rows = [*(theirs.index(name) for name in ours), len(theirs)]
    return torch.tensor(class_rows), torch.tensor([ids[name] for name in ours])
