"""Names, layouts and class orders of TensorFlow's kMaX-DeepLab (google-research/deeplab2), and ours.

A checkpoint of deeplab2 names a variable by the path of attributes that leads to it from the items of
model/kmax_deeplab.py (``checkpoint_items``); a variable that a layer made with ``add_weight`` goes by the
name given there, a layer of a ``Sequential`` by its place among those with weights. bytedance/kmax-deeplab,
convert-tf-weights-to-d2.py, lists what published checkpoints of ResNet-50 and ConvNeXt have. The names of
MaX-S follow from the same classes: model/encoder/axial_resnet.py, which is ResNet-50's too, and
model/layers/axial_blocks.py, which is the pixel decoder's too; its stem is that of model/layers/stems.py.

The rows of the class head are things, stuff, void, each in the order of ids; those of the auxiliary semantic
head are the ids (data/dataset.py), of which 0 is void on COCO and ADE20K and road on Cityscapes.
"""
import re
from typing import Callable, Dict, Mapping, NamedTuple, Optional, Tuple, Union

import numpy as np
import torch
from kmax_release import CITYSCAPES, DATASET_OF_CLASS_OUTPUTS, SEMANTIC_HEAD, ReleaseDataset
from torch import Tensor

SUFFIX = '/.ATTRIBUTES/VARIABLE_VALUE'
NOT_WEIGHTS = re.compile(
    r'/\.OPTIMIZER_SLOT/|^(backbone_)?optimizer/|^(global_step|save_counter)/|^_CHECKPOINTABLE_OBJECT_GRAPH$')
CLASS_HEAD = 'transformer_class_head/_conv/bias'

Rules = Tuple[Tuple[str, Union[str, Callable[[re.Match], str]]], ...]


class Encoder(NamedTuple):
    """A backbone of deeplab2's kMaX-DeepLab.

    Attributes:
        name: for people.
        mark: a variable that it alone has.
        backbone: what it is here.
        channels: of the stem and the four stages; none where they vary.
        rules: from its names to ours, as :data:`NAME_RULES`.
    """
    name: str
    mark: str
    backbone: str
    channels: Tuple[int, ...]
    rules: Rules


RESNET50 = Encoder(
    name='ResNet-50',
    mark='encoder/_stem/_conv/kernel',
    backbone='DeepLab2ResNet',
    channels=(64, 256, 512, 1024, 2048),
    rules=(
        (r'^encoder/_stem/_conv/', 'backbone/conv1/'),
        (r'^encoder/_stem/_batch_norm/', 'backbone/bn1/'),
        (r'^encoder/_stage(\d)/_block(\d+)/',
         lambda match: f'backbone/layer{int(match[1]) - 1}/{int(match[2]) - 1}/'),
        (r'^(backbone/layer\d/\d+)/_conv(\d)_bn(?:_act)?/_conv/', r'\1/conv\2/'),
        (r'^(backbone/layer\d/\d+)/_conv(\d)_bn(?:_act)?/_batch_norm/', r'\1/bn\2/'),
        (r'^(backbone/layer\d/\d+)/_shortcut/_conv/', r'\1/downsample/0/'),
        (r'^(backbone/layer\d/\d+)/_shortcut/_batch_norm/', r'\1/downsample/1/'),
    ))  # yapf: disable

MAX_S = Encoder(
    name='MaX-S',
    mark='encoder/_stem/_conv1_bn_act/_conv/kernel',
    backbone='AxialResNet',
    channels=(128, 256, 512, 1024, 2048),
    rules=(
        (r'^encoder/_stem/_conv(\d)_bn(?:_act)?/', lambda match: f'backbone/stem/{int(match[1]) - 1}/'),
        (r'^encoder/_stage(\d)/_block(\d+)/',
         lambda match: f'backbone/stages/{int(match[1]) - 2}/{int(match[2]) - 1}/'),
    ))  # yapf: disable

CONVNEXT = Encoder(
    name='ConvNeXt',
    mark='encoder/downsample_layers/0/layer_with_weights-0/kernel',
    backbone='KMaXConvNeXt',
    channels=(),
    rules=(
        (r'^encoder/downsample_layers/(\d)/layer_with_weights-(\d)/', r'backbone/downsample_layers/\1/\2/'),
        (r'^encoder/stages/(\d)/layer_with_weights-(\d+)/', r'backbone/stages/\1/\2/'),
        (r'/depthwise_conv/', '/dwconv/'),
        (r'/pointwise_conv(\d)/', r'/pwconv\1/'),
        (r'/layer_scale$', '/gamma'),
    ))  # yapf: disable

ENCODERS = (RESNET50, MAX_S, CONVNEXT)

# Name of a layer's own variable -> ours, before all other rules.
VARIABLE_RULES: Rules = (
    (r'/(?:depthwise_)?kernel$', '/weight'),
    (r'/gamma$', '/weight'),
    (r'/beta$', '/bias'),
    (r'/moving_mean$', '/running_mean'),
    (r'/moving_variance$', '/running_var'),
)

# Everything but the encoder: regular expressions, applied one after the other.
NAME_RULES: Rules = (
    # Pixel decoder, whose blocks are also those of MaX-S.
    (r'^pixel_decoder/', 'panoptic_head/pixel_decoder/'),
    (r'/_backbone_norms/', '/input_norms/'),
    (r'/_skip_connections/(\d)/_resized_conv_bn1/', r'/fuses/\1/coarse/1/'),
    (r'/_skip_connections/(\d)/_resized_conv_bn2/', r'/fuses/\1/fine/1/'),
    (r'/_stages/(\d)/_block(\d+)/', lambda match: f'/stages/{match[1]}/{int(match[2]) - 1}/'),
    (r'(/stages/\d/\d+)/_shortcut/', r'\1/shortcut/'),
    (r'(/stages/\d/\d+)/_conv1_bn_act/', r'\1/reduce/'),
    (r'(/stages/\d/\d+)/_conv2_bn_act/', r'\1/spatial/'),
    (r'(/stages/\d/\d+)/_conv3_bn/', r'\1/expand/'),
    (r'/_attention/_(height|width)_axis/', r'/attention/\1_axis/'),
    (r'_axis/qkv_kernel$', '_axis/qkv/conv/weight'),
    (r'_axis/_batch_norm_qkv/', '_axis/qkv/norm/'),
    (r'_axis/_(query|key|value)_rpe/embeddings$', r'_axis/\1_relative_position/table'),
    (r'_axis/_batch_norm_similarity/', '_axis/similarity_norm/'),
    (r'_axis/_batch_norm_retrieved_output/', '_axis/output_norm/'),
    # Transformer decoder.
    (r'^transformer_decoder/', 'panoptic_head/transformer_decoder/'),
    (r'/_(class|mask)_embedding_projection/', r'/\1_embedding/'),
    (r'/_kmax_decoder/(\d+)/_block1_transformer/', r'/layers/\1/'),
    (r'/_memory_conv1_bn_act/', '/slot_projection/'),
    (r'/_pixel_conv1_bn_act/', '/pixel_projection/'),
    (r'/_pixel_v_conv_bn/', '/pixel_value/'),
    (r'/_kmeans_memory_batch_norm_retrieved_value/', '/update_norm/'),
    (r'/_kmeans_memory_conv3_bn/', '/update/'),
    (r'/_memory_qkv_conv_bn/', '/self_attention/qkv/'),
    (r'/_memory_attention/_batch_norm_similarity/', '/self_attention/similarity_norm/'),
    (r'/_memory_attention/_batch_norm_retrieved_value/', '/self_attention/value_norm/'),
    (r'/_memory_conv3_bn/', '/self_attention/project/'),
    (r'/_memory_ffn_conv1_bn_act/', '/ffn/0/'),
    (r'/_memory_ffn_conv2_bn/', '/ffn/1/'),
    # Predictors: one in every layer; the parts of the final one lie at the top.
    (r'/_auxiliary_clustering_predictor/_', '/predictor/'),
    (r'^(?=pixel_space_|transformer_(?:class|mask)_head/)', 'panoptic_head/transformer_decoder/predictor/'),
    (r'/pixel_space_head/conv_block/_conv1_bn_act/', '/pixel_head/'),
    (r'/pixel_space_head/final_conv/', '/pixel_embedding/conv/'),
    (r'/pixel_space_feature_batch_norm/', '/pixel_embedding/norm/'),
    (r'/pixel_space_mask_batch_norm/', '/mask_norm/'),
    (r'/transformer_mask_head/', '/mask_kernel/'),
    (r'/transformer_class_head/', '/class_head/'),
    # Auxiliary semantic decoder and head.
    (r'^semantic_decoder/', 'panoptic_head/semantic_head/'),
    (r'/_aspp/_conv_bn_act/', '/aspp/branches/0/'),
    (r'/_aspp/_aspp_conv(\d)/_conv_bn_act/', r'/aspp/branches/\1/'),
    (r'(/aspp/branches/\d)/_batch_norm/', r'\1/bn/'),
    (r'/_aspp/_aspp_pool/_conv_bn_act/', '/aspp/pool/project/'),
    (r'/_aspp/_proj_conv_bn_act/', '/aspp/project/'),
    (r'/_low_level_conv1/', '/fuse_res3/reduce/'),
    (r'/_low_level_conv2/', '/fuse_res2/reduce/'),
    (r'/_fusion_conv1/_conv1_bn_act/', '/fuse_res3/fuse/'),
    (r'/_fusion_conv2/_conv1_bn_act/', '/fuse_res2/fuse/'),
    (r'^semantic_head_without_last_layer/_conv1_bn_act/', 'panoptic_head/semantic_head/head/'),
    (r'^semantic_last_layer/', 'panoptic_head/semantic_head/classifier/conv/'),
    # Convolutions and their norms.
    (r'/_depthwise/_depthwise_conv/', '/0/conv/'),
    (r'/_depthwise/', '/0/'),
    (r'/_pointwise/', '/1/'),
    (r'/_conv/', '/conv/'),
    (r'/_batch_norm/', '/norm/'),
)


class Layout(NamedTuple):
    """How the axes of some variables are arranged.

    Attributes:
        pattern: of their names in TensorFlow.
        num_axes: that they have there; None if any.
        arrange: makes torch's arrangement of TensorFlow's.
    """
    pattern: str
    num_axes: Optional[int]
    arrange: Callable[[Tensor], Tensor]


# The first that fits; variables of which none does have the same axes here.
LAYOUTS = (
    # Height, width, channels, 1 -> channels, 1, height, width.
    Layout(r'/depthwise_kernel$', 4, lambda kernel: kernel.permute(2, 3, 0, 1)),
    # Convolutions of flattened pixels, which here run over the map.
    Layout(r'/_pixel_(conv1_bn_act|v_conv_bn)/_conv/kernel$', 3,
           lambda kernel: kernel.permute(2, 1, 0)[..., None]),
    # Space, in, out -> out, in, space.
    Layout(r'/kernel$', 4, lambda kernel: kernel.permute(3, 2, 0, 1)),
    Layout(r'/kernel$', 3, lambda kernel: kernel.permute(2, 1, 0)),
    Layout(r'/kernel$', 2, lambda kernel: kernel.t()),
    Layout(r'/qkv_kernel$', 2, lambda kernel: kernel.t()[..., None]),
    # 1, slots, channels -> channels, slots.
    Layout(r'^transformer_decoder/cluster_centers$', 3, lambda centers: centers.permute(2, 1, 0).squeeze(-1)),
    # One value for each channel, head or kind, with axes of length 1 between them.
    Layout(r'/(gamma|beta|moving_mean|moving_variance|layer_scale)$', None, lambda values: values.flatten()),
)  # yapf: disable


class Converted(NamedTuple):
    """Weights by our names, and what they are of."""
    weights: Dict[str, Tensor]
    encoder: Encoder
    dataset: ReleaseDataset


def name_here(name: str, encoder: Encoder) -> str:
    """Name in a ``MaskTransformer`` of ours of a variable of deeplab2's, without :data:`SUFFIX`.

    An unknown name comes back as it is.
    """
    ours = name
    for pattern, replacement in (*VARIABLE_RULES, *encoder.rules, *NAME_RULES):
        ours = re.sub(pattern, replacement, ours)
    known = ours.startswith(('backbone/', 'panoptic_head/')) and '/_' not in ours
    return ours.replace('/', '.') if known else name


def to_torch(name: str, array: np.ndarray) -> Tensor:
    """A variable of deeplab2's, arranged as torch has it, or as it is if its number of axes is unexpected."""
    value = torch.from_numpy(np.require(array, np.float32, 'W'))
    for layout in LAYOUTS:
        if re.search(layout.pattern, name) and layout.num_axes in (None, value.dim()):
            return layout.arrange(value).contiguous()
    return value


def convert_variables(variables: Mapping[str, np.ndarray]) -> Converted:
    """Rename and rearrange the variables of a checkpoint, and put class outputs into the order here.

    Args:
        variables: by the names of a checkpoint, with :data:`SUFFIX` or without, but those that
            :data:`NOT_WEIGHTS` matches.

    Raises:
        ValueError: they are not of kMaX-DeepLab, or of an encoder or a dataset that is not known, or two of
            them are the same weight here.
    """
    short = {name: name[:-len(SUFFIX)] if name.endswith(SUFFIX) else name for name in variables}
    arrays = {short[name]: array for name, array in variables.items()}
    dataset, encoder = _dataset_of(arrays), _encoder_of(arrays)
    class_rows, semantic_rows = rows_here(dataset)

    weights: Dict[str, Tensor] = {}
    for name, array in variables.items():
        ours, value = name_here(short[name], encoder), to_torch(short[name], array)
        if ours in weights:
            raise ValueError(f'Expected every weight once, but {name} is a second {ours}')
        if '.class_head.' in ours:
            value = _take(value, class_rows, name)
        elif ours.startswith(f'{SEMANTIC_HEAD}classifier.'):
            value = _take(value, semantic_rows, name)
        weights[ours] = value
    return Converted(weights, encoder, dataset)


def _take(value: Tensor, rows: Tensor, name: str) -> Tensor:
    outputs = int(rows.max()) + 1
    if value.shape[:1] != (outputs, ):
        raise ValueError(f'Expected {outputs} outputs of {name}, but got {tuple(value.shape[:1])}')
    return value[rows]


def rows_here(dataset: ReleaseDataset) -> Tuple[Tensor, Tensor]:
    """For each row of our class head, then of our semantic head, the row of deeplab2's that it is."""
    first_id = 0 if dataset is CITYSCAPES else 1
    ids = {name: first_id + index for index, name in enumerate(dataset.classes)}
    things = dataset.metainfo['thing_classes']
    theirs = sorted(ids, key=lambda name: (name not in things, ids[name]))

    ours = dataset.metainfo['classes']
    class_rows = [*(theirs.index(name) for name in ours), len(theirs)]
    return torch.tensor(class_rows), torch.tensor([ids[name] for name in ours])


def _dataset_of(variables: Mapping[str, np.ndarray]) -> ReleaseDataset:
    if CLASS_HEAD not in variables:
        some = ', '.join(sorted(variables)[:3]) or 'none'
        raise ValueError(f"Expected variables of deeplab2's kMaX-DeepLab, {CLASS_HEAD} among them, but found "
                         f'{len(variables)} others, such as: {some}')
    outputs = variables[CLASS_HEAD].size
    if outputs not in DATASET_OF_CLASS_OUTPUTS:
        known = ', '.join(f'{number} ({dataset.name})'
                          for number, dataset in DATASET_OF_CLASS_OUTPUTS.items())
        raise ValueError(f'Expected a class head of {known} outputs, void included, but found {outputs}')
    return DATASET_OF_CLASS_OUTPUTS[outputs]


def _encoder_of(variables: Mapping[str, np.ndarray]) -> Encoder:
    for encoder in ENCODERS:
        if encoder.mark in variables:
            return encoder
    known = ', '.join(encoder.name for encoder in ENCODERS)
    found = sorted(name for name in variables if name.startswith('encoder/'))[:3]
    raise ValueError(f'Expected an encoder among {known}, but found {", ".join(found) or "none"}')
