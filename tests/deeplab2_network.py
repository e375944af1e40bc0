"""The forward pass of TensorFlow's kMaX-DeepLab at inference, in numpy.

It follows google-research/deeplab2, model/kmax_deeplab.py, and the modules used there. Features are
(B, h, w, C). ``v`` maps the names of the variables to their values, see tests/deeplab2_variables.py.
"""
from typing import Callable, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
from scipy.special import erf, softmax

Array = np.ndarray
Variables = Dict[str, Array]
Activation = Callable[[Array], Array]


class Prediction(NamedTuple):
    """Pixel feature (B, h, w, D), class logits (B, N, K + 1) and mask logits (B, h, w, N)."""
    pixel_feature: Array
    class_logits: Array
    mask_logits: Array


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def no_activation(x: Array) -> Array:
    return x


def batch_norm(v: Variables, path: str, x: Array, trailing_axes: int = 0) -> Array:
    gamma, beta, mean, variance = (
        v[f'{path}/{name}'].reshape(*v[f'{path}/{name}'].shape, *[1] * trailing_axes)
        for name in ('gamma', 'beta', 'moving_mean', 'moving_variance'))
    return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta


def layer_norm(v: Variables, path: str, x: Array) -> Array:
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * v[f'{path}/gamma'] + v[f'{path}/beta']


def windows(x: Array, size: int, stride: int, dilation: int, pad: bool) -> List[List[Array]]:
    """For each element of a kernel, the pixels that it is multiplied with."""
    margin = (size - 1) * dilation // 2 if pad else 0
    x = np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    height, width = ((length - (size - 1) * dilation - 1) // stride + 1 for length in x.shape[1:3])
    return [[
        x[:, i * dilation:][:, ::stride][:, :height, j * dilation:][:, :, ::stride][:, :, :width]
        for j in range(size)
    ] for i in range(size)]


def conv2d(x: Array, kernel: Array, stride: int = 1, dilation: int = 1, pad: bool = True) -> Array:
    pixels = windows(x, len(kernel), stride, dilation, pad)
    return sum(pixels[i][j] @ kernel[i, j] for i in range(len(kernel)) for j in range(len(kernel)))


def depthwise_conv2d(x: Array, kernel: Array) -> Array:
    pixels = windows(x, len(kernel), 1, 1, True)
    return sum(pixels[i][j] * kernel[i, j] for i in range(len(kernel)) for j in range(len(kernel)))


def conv_bn(v: Variables, path: str, x: Array, act: Activation, stride: int = 1, dilation: int = 1) -> Array:
    """``Conv2DSame`` on (B, h, w, C), ``Conv1D`` on (B, L, C)."""
    kernel = v[f'{path}/_conv/kernel']
    x = x @ kernel[0] if kernel.ndim == 3 else conv2d(x, kernel, stride, dilation)
    return act(batch_norm(v, f'{path}/_batch_norm', x))


def stacked_conv(v: Variables, path: str, x: Array) -> Array:
    path += '/_conv1_bn_act/'
    x = depthwise_conv2d(x, v[f'{path}_depthwise/_depthwise_conv/depthwise_kernel'][..., 0])
    x = gelu(batch_norm(v, f'{path}_depthwise/_batch_norm', x))
    return conv_bn(v, f'{path}_pointwise', x, gelu)


def resize(x: Array, size: Tuple[int, int]) -> Array:
    """Resize (B, h, w, C) bilinearly with aligned corners."""
    for axis, length in zip((1, 2), size):
        position = np.linspace(0, x.shape[axis] - 1, length)
        low = np.minimum(position.astype(int), max(x.shape[axis] - 2, 0))
        weight = (position - low).reshape([length if i == axis else 1 for i in range(4)])
        high = np.minimum(low + 1, x.shape[axis] - 1)
        x = np.take(x, low, axis) * (1 - weight) + np.take(x, high, axis) * weight
    return x


def heads_of(x: Array) -> Array:
    """(B, L, 8 d) -> (B, 8, L, d)."""
    return x.reshape(*x.shape[:2], 8, -1).transpose(0, 2, 1, 3)


def axial_attention(v: Variables, path: str, x: Array) -> Array:
    """(B, L, C) -> (B, L, 2 f)."""
    qkv = batch_norm(v, f'{path}/_batch_norm_qkv', x @ v[f'{path}/qkv_kernel'])
    depth = qkv.shape[-1] // 4
    query, key, value = map(heads_of, np.split(qkv, [depth, 2 * depth], axis=-1))
    position = np.arange(x.shape[1])
    rpe = {
        kind: v[f'{path}/_{kind}_rpe/embeddings'][position[None] - position[:, None] + 254]
        for kind in ('query', 'key', 'value')
    }

    logits = np.stack([
        np.einsum('bhld,bhmd->bhlm', query, key),
        np.einsum('bhld,lmd->bhlm', query, rpe['query']),
        np.einsum('bhmd,lmd->bhlm', key, rpe['key'])
    ])
    weights = softmax(batch_norm(v, f'{path}/_batch_norm_similarity', logits).sum(0), axis=-1)
    retrieved = np.stack(
        [np.einsum('bhlm,bhmd->bhld', weights, value),
         np.einsum('bhlm,lmd->bhld', weights, rpe['value'])])
    retrieved = batch_norm(v, f'{path}/_batch_norm_retrieved_output', retrieved).sum(0)
    return retrieved.transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1)


def axial_attention_2d(v: Variables, path: str, x: Array, stride: int) -> Array:
    columns = [axial_attention(v, f'{path}/_height_axis', x[:, :, i]) for i in range(x.shape[2])]
    x = np.stack(columns, axis=2)[:, ::stride]
    rows = [axial_attention(v, f'{path}/_width_axis', x[:, i]) for i in range(x.shape[1])]
    return np.stack(rows, axis=1)[:, :, ::stride]


def block(v: Variables, path: str, x: Array, act: Activation, stride: int) -> Array:
    x = act(x)
    shortcut = x[:, ::stride, ::stride]
    if f'{path}/_shortcut/_conv/kernel' in v:
        shortcut = conv_bn(v, f'{path}/_shortcut', x, no_activation, stride)
    x = conv_bn(v, f'{path}/_conv1_bn_act', x, act)
    if f'{path}/_conv2_bn_act/_conv/kernel' in v:
        x = conv_bn(v, f'{path}/_conv2_bn_act', x, act, stride)
    else:
        x = act(axial_attention_2d(v, f'{path}/_attention', x, stride))
    return conv_bn(v, f'{path}/_conv3_bn', x, no_activation) + shortcut


def block_group(v: Variables, path: str, x: Array, act: Activation, stride: int = 1) -> Array:
    index = 1
    while f'{path}/_block{index}/_conv1_bn_act/_conv/kernel' in v:
        x = block(v, f'{path}/_block{index}', x, act, stride if index == 1 else 1)
        index += 1
    return x


def resnet(v: Variables, image: Array) -> List[Array]:
    """Features of the stem and of stages 2 to 5."""
    if 'encoder/_stem/_conv/kernel' in v:
        act, x = relu, conv_bn(v, 'encoder/_stem', image, no_activation, stride=2)
    else:
        act, x = gelu, conv_bn(v, 'encoder/_stem/_conv1_bn_act', image, gelu, stride=2)
        x = conv_bn(v, 'encoder/_stem/_conv2_bn_act', x, gelu)
        x = conv_bn(v, 'encoder/_stem/_conv3_bn', x, no_activation)
    features = [x]
    for stage in range(2, 6):
        features.append(block_group(v, f'encoder/_stage{stage}', features[-1], act, stride=2))
    return features


def convnext(v: Variables, image: Array) -> List[Array]:
    """Features of the stem and of stages 2 to 5."""
    down = 'encoder/downsample_layers/0/layer_with_weights-'
    x = np.pad(image, ((0, 0), (1, 2), (1, 2), (0, 0)))
    x = conv2d(x, v[f'{down}0/kernel'], stride=4, pad=False) + v[f'{down}0/bias']
    features = [layer_norm(v, f'{down}1', x)]
    for stage in range(4):
        x = features[-1]
        if stage:
            down = f'encoder/downsample_layers/{stage}/layer_with_weights-'
            x = layer_norm(v, f'{down}0', np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))))
            x = conv2d(x, v[f'{down}1/kernel'], stride=2, pad=False) + v[f'{down}1/bias']
        index = 0
        while f'encoder/stages/{stage}/layer_with_weights-{index}/layer_scale' in v:
            x = convnext_block(v, f'encoder/stages/{stage}/layer_with_weights-{index}', x)
            index += 1
        features.append(x)
    return features


def convnext_block(v: Variables, path: str, x: Array) -> Array:
    out = depthwise_conv2d(x, v[f'{path}/depthwise_conv/kernel'][:, :, 0]) + v[f'{path}/depthwise_conv/bias']
    out = layer_norm(v, f'{path}/norm', out)
    out = gelu(out @ v[f'{path}/pointwise_conv1/kernel'] + v[f'{path}/pointwise_conv1/bias'])
    out = out @ v[f'{path}/pointwise_conv2/kernel'] + v[f'{path}/pointwise_conv2/bias']
    return x + v[f'{path}/layer_scale'] * out


def pixel_decoder(v: Variables, features: Sequence[Array]) -> List[Array]:
    """Decode features; input and output are ordered from coarse to fine."""
    outputs: List[Array] = []
    for index, feature in enumerate(features):
        x = layer_norm(v, f'pixel_decoder/_backbone_norms/{index}', feature)
        if index:
            skip = f'pixel_decoder/_skip_connections/{index - 1}/_resized_conv_bn'
            coarse = conv_bn(v, f'{skip}1', gelu(outputs[-1]), no_activation)
            x = resize(coarse, x.shape[1:3]) + conv_bn(v, f'{skip}2', gelu(x), no_activation)
        outputs.append(block_group(v, f'pixel_decoder/_stages/{index}', x, gelu))
    return outputs


def predict(v: Variables, prefix: str, feature: Array, classes: Array, masks: Array) -> Prediction:
    """``MaXDeepLab``: prediction from a feature (B, h, w, C) and slot embeddings (B, N, C)."""
    x = stacked_conv(v, f'{prefix}pixel_space_head/conv_block', feature)
    final = f'{prefix}pixel_space_head/final_conv'
    x = batch_norm(v, f'{prefix}pixel_space_feature_batch_norm',
                   x @ v[f'{final}/kernel'][0, 0] + v[f'{final}/bias'])
    x = x / np.sqrt((x**2).sum(-1, keepdims=True))

    head = f'{prefix}transformer_class_head/_conv'
    logits = classes @ v[f'{head}/kernel'][0] + v[f'{head}/bias']
    logits[..., -1] += np.log((logits.shape[-1] - 1) * 0.9 / 0.1)
    kernel = conv_bn(v, f'{prefix}transformer_mask_head', masks, no_activation)
    masks = np.einsum('bhwd,bid->bhwi', x, kernel)
    return Prediction(x, logits, batch_norm(v, f'{prefix}pixel_space_mask_batch_norm', masks))


def transformer_layer(v: Variables, path: str, feature: Array, memory: Array) -> Tuple[Array, Prediction]:
    """``DualPathTransformerLayer`` with k-means: the updated slots (B, N, C), and the prediction before."""
    slots = conv_bn(v, f'{path}/_memory_conv1_bn_act', memory, gelu)
    flat = gelu(feature).reshape(len(feature), -1, feature.shape[-1])
    pixels = conv_bn(v, f'{path}/_pixel_conv1_bn_act', flat, gelu)
    value = conv_bn(v, f'{path}/_pixel_v_conv_bn', pixels, no_activation)
    prediction = predict(v, f'{path}/_auxiliary_clustering_predictor/_',
                         pixels.reshape(*feature.shape[:3], -1), slots, slots)

    owner = prediction.mask_logits.reshape(len(feature), -1, memory.shape[1]).argmax(-1)
    update = np.eye(memory.shape[1])[owner].transpose(0, 2, 1) @ value
    update = batch_norm(v, f'{path}/_kmeans_memory_batch_norm_retrieved_value', update)
    memory = memory + conv_bn(v, f'{path}/_kmeans_memory_conv3_bn', update, no_activation)

    qkv = conv_bn(v, f'{path}/_memory_qkv_conv_bn', slots, no_activation)
    depth = qkv.shape[-1] // 4
    query, key, value = map(heads_of, np.split(qkv, [depth, 2 * depth], axis=-1))
    attention = f'{path}/_memory_attention'
    logits = batch_norm(
        v, f'{attention}/_batch_norm_similarity', query @ key.transpose(0, 1, 3, 2), trailing_axes=2)
    retrieved = gelu(batch_norm(v, f'{attention}/_batch_norm_retrieved_value', softmax(logits, -1) @ value))
    retrieved = retrieved.transpose(0, 2, 1, 3).reshape(memory.shape)
    memory = gelu(memory + conv_bn(v, f'{path}/_memory_conv3_bn', retrieved, no_activation))

    hidden = conv_bn(v, f'{path}/_memory_ffn_conv1_bn_act', memory, gelu)
    return gelu(memory + conv_bn(v, f'{path}/_memory_ffn_conv2_bn', hidden, no_activation)), prediction


def semantic_logits(v: Variables, features: Sequence[Array]) -> Array:
    """Logits of the auxiliary semantic head from res2 to res5, or from res5 alone if it has no decoder."""
    x = features[-1]
    if 'semantic_decoder/_aspp/_conv_bn_act/_conv/kernel' in v:
        aspp = 'semantic_decoder/_aspp'
        pooled = conv_bn(v, f'{aspp}/_aspp_pool/_conv_bn_act', x.mean((1, 2), keepdims=True), gelu)
        branches = [
            conv_bn(v, f'{aspp}/_conv_bn_act', x, gelu),
            *(conv_bn(v, f'{aspp}/_aspp_conv{i}/_conv_bn_act', x, gelu, dilation=6 * i) for i in (1, 2, 3)),
            resize(pooled, x.shape[1:3])
        ]
        x = conv_bn(v, f'{aspp}/_proj_conv_bn_act', np.concatenate(branches, -1), gelu)
        for index, feature in ((1, features[1]), (2, features[0])):
            low = conv_bn(v, f'semantic_decoder/_low_level_conv{index}', feature, gelu)
            x = np.concatenate([resize(x, low.shape[1:3]), low], -1)
            x = stacked_conv(v, f'semantic_decoder/_fusion_conv{index}', x)
    x = stacked_conv(v, 'semantic_head_without_last_layer', x)
    return x @ v['semantic_last_layer/kernel'][0, 0] + v['semantic_last_layer/bias']


def kmax_deeplab(v: Variables, features: Sequence[Array]) -> List[Prediction]:
    """Predictions of the six layers and the final one, from the features of an encoder, fine to coarse."""
    features = pixel_decoder(v, features[::-1])
    memory = np.repeat(v['transformer_decoder/cluster_centers'], len(features[0]), axis=0)
    predictions = []
    for index in range(6):
        path = f'transformer_decoder/_kmax_decoder/{index}/_block1_transformer'
        memory, prediction = transformer_layer(v, path, features[index // 2], memory)
        predictions.append(prediction)

    classes = conv_bn(v, 'transformer_decoder/_class_embedding_projection', memory, gelu)
    masks = conv_bn(v, 'transformer_decoder/_mask_embedding_projection', memory, gelu)
    return [*predictions, predict(v, '', features[-1], classes, masks)]
