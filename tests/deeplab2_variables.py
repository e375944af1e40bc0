"""Names and shapes of the variables of TensorFlow's kMaX-DeepLab.

The names are the attributes in google-research/deeplab2, without the suffix of a checkpoint. The shapes have
TensorFlow's order of axes. The docstring of a function names the class in deeplab2's ``model`` folder.
"""
from typing import Dict, NamedTuple, Sequence, Tuple

import numpy as np

Shapes = Dict[str, Tuple[int, ...]]


class Sizes(NamedTuple):
    """Widths of the encoder's bottlenecks and of all other parts; the defaults are those of deeplab2."""
    base: int = 64
    filters: Tuple[int, ...] = (512, 256, 128, 64)
    slots: int = 128
    channels: int = 256
    ffn: int = 2048
    embedding: int = 128
    aspp: int = 256


SMALL = Sizes(base=8, filters=(64, 8, 8, 4), slots=12, channels=32, ffn=24, embedding=16, aspp=16)


def norm(path: str, *shape: int) -> Shapes:
    """``BatchNormalization``; axes that share parameters have length 1."""
    return {f'{path}/{name}': shape for name in ('gamma', 'beta', 'moving_mean', 'moving_variance')}


def layer_norm(path: str, channels: int) -> Shapes:
    return {f'{path}/gamma': (channels, ), f'{path}/beta': (channels, )}


def biased(path: str, *shape: int) -> Shapes:
    """A convolution or dense layer with bias and without norm."""
    return {f'{path}/kernel': shape, f'{path}/bias': shape[-1:]}


def conv(path: str, kernel: int, inputs: int, outputs: int) -> Shapes:
    """layers/convolutions.py ``Conv2DSame``."""
    return {f'{path}/_conv/kernel': (kernel, kernel, inputs, outputs), **norm(f'{path}/_batch_norm', outputs)}


def conv1d(path: str, inputs: int, outputs: int) -> Shapes:
    """layers/convolutions.py ``Conv1D``."""
    return {f'{path}/_conv/kernel': (1, inputs, outputs), **norm(f'{path}/_batch_norm', outputs)}


def stacked(path: str, inputs: int, outputs: int) -> Shapes:
    """layers/convolutions.py ``StackedConv2DSame`` of one ``SeparableConv2DSame``."""
    path += '/_conv1_bn_act/'
    return {
        f'{path}_depthwise/_depthwise_conv/depthwise_kernel': (5, 5, inputs, 1),
        **norm(f'{path}_depthwise/_batch_norm', inputs),
        **conv(f'{path}_pointwise', 1, inputs, outputs)
    }


def axial_attention(path: str, inputs: int, filters: int) -> Shapes:
    """layers/axial_layers.py ``AxialAttention`` of 8 heads."""
    return {
        f'{path}/qkv_kernel': (inputs, 4 * filters),
        f'{path}/_query_rpe/embeddings': (509, filters // 8),
        f'{path}/_key_rpe/embeddings': (509, filters // 8),
        f'{path}/_value_rpe/embeddings': (509, filters // 4),
        **norm(f'{path}/_batch_norm_qkv', 4 * filters),
        **norm(f'{path}/_batch_norm_similarity', 3, 1, 8, 1, 1),
        **norm(f'{path}/_batch_norm_retrieved_output', 2, 1, 8, 1, filters // 4)
    }


def block(path: str, inputs: int, filters: int, axial: bool) -> Shapes:
    """layers/axial_blocks.py ``AxialBlock``."""
    width = 2 * filters if axial else filters
    shapes = conv(f'{path}/_conv1_bn_act', 1, inputs, width)
    if axial:
        for axis in ('height', 'width'):
            shapes.update(axial_attention(f'{path}/_attention/_{axis}_axis', width, filters))
    else:
        shapes.update(conv(f'{path}/_conv2_bn_act', 3, width, filters))
    shapes.update(conv(f'{path}/_conv3_bn', 1, width, 4 * filters))
    if inputs != 4 * filters:
        shapes.update(conv(f'{path}/_shortcut', 1, inputs, 4 * filters))
    return shapes


def block_group(path: str, inputs: int, filters: int, axial: Sequence[bool]) -> Shapes:
    """layers/axial_block_groups.py ``BlockGroup``, with one block for each entry of ``axial``."""
    shapes: Shapes = {}
    for index, kind in enumerate(axial):
        shapes.update(block(f'{path}/_block{index + 1}', 4 * filters if index else inputs, filters, kind))
    return shapes


def resnet(kind: str, base: int) -> Tuple[Shapes, Tuple[int, ...]]:
    """encoder/axial_resnet.py ``AxialResNet``, ``'resnet50'`` or ``'max_s'``, and its feature channels."""
    if kind == 'resnet50':
        stem, shapes = 64, conv('encoder/_stem', 7, 3, 64)
        kinds = [[False] * depth for depth in (3, 4, 6, 3)]
    else:
        # layers/stems.py ``InceptionSTEM``; blocks are axial if their input has stride 16 or more.
        stem = 128
        shapes = {
            **conv('encoder/_stem/_conv1_bn_act', 3, 3, 64),
            **conv('encoder/_stem/_conv2_bn_act', 3, 64, 64),
            **conv('encoder/_stem/_conv3_bn', 3, 64, 128)
        }
        kinds = [[False] * 3, [False] * 4, [False] + [True] * 5, [True] * 3]
    channels = (stem, 4 * base, 8 * base, 16 * base, 32 * base)
    for index, axial in enumerate(kinds):
        shapes.update(block_group(f'encoder/_stage{index + 2}', channels[index], base * 2**index, axial))
    return shapes, channels


def convnext(depths: Sequence[int], dims: Sequence[int]) -> Tuple[Shapes, Tuple[int, ...]]:
    """pixel_encoder/convnext.py ``ConvNeXt``, and its feature channels."""
    shapes: Shapes = {}
    for stage, (depth, dim) in enumerate(zip(depths, dims)):
        down = f'encoder/downsample_layers/{stage}/layer_with_weights-'
        if stage == 0:
            shapes.update({**biased(f'{down}0', 4, 4, 3, dim), **layer_norm(f'{down}1', dim)})
        else:
            fine = dims[stage - 1]
            shapes.update({**layer_norm(f'{down}0', fine), **biased(f'{down}1', 2, 2, fine, dim)})
        for index in range(depth):
            path = f'encoder/stages/{stage}/layer_with_weights-{index}'
            shapes.update({
                f'{path}/layer_scale': (1, 1, 1, dim),
                **biased(f'{path}/depthwise_conv', 7, 7, 1, dim),
                **layer_norm(f'{path}/norm', dim),
                **biased(f'{path}/pointwise_conv1', dim, 4 * dim),
                **biased(f'{path}/pointwise_conv2', 4 * dim, dim)
            })
    return shapes, (dims[0], *dims)


def pixel_decoder(features: Sequence[int], filters: Sequence[int]) -> Shapes:
    """pixel_decoder/kmax.py ``KMaXPixelDecoder``; features are ordered from coarse to fine."""
    shapes: Shapes = {}
    for index, (feature, width) in enumerate(zip(features, filters)):
        shapes.update(layer_norm(f'pixel_decoder/_backbone_norms/{index}', feature))
        if index:
            skip = f'pixel_decoder/_skip_connections/{index - 1}/_resized_conv_bn'
            shapes.update(conv(f'{skip}1', 1, 4 * filters[index - 1], width))
            shapes.update(conv(f'{skip}2', 1, feature, width))
        axial = [index < 2] * (5 if index == 1 else 1)
        shapes.update(
            block_group(f'pixel_decoder/_stages/{index}', width if index else feature, width, axial))
    return shapes


def predictor(prefix: str, inputs: int, outputs: int, sizes: Sizes) -> Shapes:
    """decoder/max_deeplab.py ``MaXDeepLab`` without its semantic part; ``prefix`` precedes each name."""
    width, embedding = sizes.channels, sizes.embedding
    return {
        **stacked(f'{prefix}pixel_space_head/conv_block', inputs, width),
        **biased(f'{prefix}pixel_space_head/final_conv', 1, 1, width, embedding),
        **norm(f'{prefix}pixel_space_feature_batch_norm', embedding),
        **conv1d(f'{prefix}transformer_mask_head', width, embedding),
        **biased(f'{prefix}transformer_class_head/_conv', 1, width, outputs),
        **norm(f'{prefix}pixel_space_mask_batch_norm', 1)
    }


def transformer_layer(path: str, inputs: int, outputs: int, sizes: Sizes) -> Shapes:
    """layers/dual_path_transformer.py ``DualPathTransformerLayer`` with k-means cross-attention."""
    width = sizes.channels
    return {
        **conv1d(f'{path}/_memory_conv1_bn_act', width, width),
        **conv1d(f'{path}/_pixel_conv1_bn_act', inputs, width),
        **conv1d(f'{path}/_memory_qkv_conv_bn', width, 2 * width),
        **conv1d(f'{path}/_pixel_v_conv_bn', width, width),
        **norm(f'{path}/_memory_attention/_batch_norm_similarity', 8),
        **norm(f'{path}/_memory_attention/_batch_norm_retrieved_value', 1, 8, 1, width // 8),
        **predictor(f'{path}/_auxiliary_clustering_predictor/_', width, outputs, sizes),
        **conv1d(f'{path}/_memory_conv3_bn', width, width),
        **conv1d(f'{path}/_memory_ffn_conv1_bn_act', width, sizes.ffn),
        **conv1d(f'{path}/_memory_ffn_conv2_bn', sizes.ffn, width),
        **norm(f'{path}/_kmeans_memory_batch_norm_retrieved_value', width),
        **conv1d(f'{path}/_kmeans_memory_conv3_bn', width, width)
    }


def transformer_decoder(outputs: int, sizes: Sizes) -> Shapes:
    """transformer_decoder/kmax.py ``KMaXTransformerDecoder``: two layers at each of strides 32, 16 and 8."""
    shapes: Shapes = {'transformer_decoder/cluster_centers': (1, sizes.slots, sizes.channels)}
    for kind in ('class', 'mask'):
        path = f'transformer_decoder/_{kind}_embedding_projection'
        shapes.update(conv1d(path, sizes.channels, sizes.channels))
    for index in range(6):
        path = f'transformer_decoder/_kmax_decoder/{index}/_block1_transformer'
        shapes.update(transformer_layer(path, 4 * sizes.filters[index // 2], outputs, sizes))
    return shapes


def semantic_decoder(res2: int, res3: int, res5: int, sizes: Sizes) -> Shapes:
    """decoder/panoptic_deeplab.py ``PanopticDeepLabSingleDecoder`` with decoder/aspp.py ``ASPP``."""
    path, width = 'semantic_decoder', sizes.aspp
    shapes = {
        **conv(f'{path}/_aspp/_conv_bn_act', 1, res5, width),
        **conv(f'{path}/_aspp/_aspp_pool/_conv_bn_act', 1, res5, width),
        **conv(f'{path}/_aspp/_proj_conv_bn_act', 1, 5 * width, width)
    }
    for index in (1, 2, 3):
        shapes.update(conv(f'{path}/_aspp/_aspp_conv{index}/_conv_bn_act', 3, res5, width))
    for index, (feature, reduced) in enumerate(((res3, 64), (res2, 32)), start=1):
        shapes.update(conv(f'{path}/_low_level_conv{index}', 1, feature, reduced))
        shapes.update(stacked(f'{path}/_fusion_conv{index}', width + reduced, width))
    return shapes


def kmax_deeplab(encoder: Tuple[Shapes, Tuple[int, ...]], classes: int, sizes: Sizes = Sizes()) -> Shapes:
    """kmax_deeplab.py ``checkpoint_items``, with 133 classes (COCO), 150 (ADE20K) or 19 (Cityscapes)."""
    shapes, (stem, *stages) = encoder
    cityscapes = classes == 19
    if cityscapes:
        sizes = sizes._replace(filters=(*sizes.filters, 32), slots=256)
    features = [*stages[::-1], *([stem] if cityscapes else [])]
    semantic_inputs, semantic_outputs = (stages[-1], classes) if cityscapes else (sizes.aspp, classes + 1)
    shapes = {
        **shapes,
        **pixel_decoder(features, sizes.filters),
        **transformer_decoder(classes + 1, sizes),
        **predictor('', 4 * sizes.filters[-1], classes + 1, sizes),
        **stacked('semantic_head_without_last_layer', semantic_inputs, sizes.aspp),
        **biased('semantic_last_layer', 1, 1, sizes.aspp, semantic_outputs)
    }
    if not cityscapes:
        shapes.update(semantic_decoder(stages[0], stages[1], stages[-1], sizes))
    return shapes


def numbered(shapes: Shapes) -> Dict[str, np.ndarray]:
    """Arrays filled with 1, 2, 3 and so on; broadcasting saves memory."""
    return {
        name: np.broadcast_to(np.float32(number), shape)
        for number, (name, shape) in enumerate(shapes.items(), start=1)
    }


def randomized(shapes: Shapes, seed: int = 0) -> Dict[str, np.ndarray]:
    """Random arrays that preserve the scale of a signal; variances are positive."""
    rng = np.random.RandomState(seed)
    arrays = {}
    for name, shape in shapes.items():
        kind = name.rsplit('/', 1)[1]
        if kind in ('gamma', 'moving_variance', 'layer_scale'):
            array = rng.uniform(0.5, 1.5, shape)
        elif kind.endswith('kernel'):
            inputs = np.prod(shape[:2] if kind == 'depthwise_kernel' else shape[:-1])
            array = rng.randn(*shape) * 1.5 / np.sqrt(inputs)
        else:
            array = rng.randn(*shape) * (1.0 if kind in ('embeddings', 'cluster_centers') else 0.3)
        arrays[name] = array.astype(np.float32)
    return arrays
