"""Variable names of TensorFlow's kMaX-DeepLab (google-research/deeplab2), and our parameter names.

A checkpoint of deeplab2 names a variable by the path of attributes that leads to it from the items of
model/kmax_deeplab.py (``checkpoint_items``). A variable that a layer creates with ``add_weight`` has the name
given there, and a layer of a ``Sequential`` its index among the layers with weights.

convert-tf-weights-to-d2.py of bytedance/kmax-deeplab lists the names in published checkpoints of ResNet-50
and ConvNeXt. The names of MaX-S follow from the same classes: model/encoder/axial_resnet.py (also ResNet-50),
model/layers/axial_blocks.py (also the pixel decoder) and model/layers/stems.py.
"""
from typing import Collection, NamedTuple, Tuple

from .kmax_release import Rules, apply_rules


class Encoder(NamedTuple):
    """A backbone of deeplab2's kMaX-DeepLab.

    Attributes:
        name: Name for messages.
        marker: A variable that only this encoder has.
        backbone: Our backbone.
        channels: Channels of the stem and the four stages; empty if they vary.
        rules: Its names -> our names, like :data:`NAME_RULES`.
    """
    name: str
    marker: str
    backbone: str
    channels: Tuple[int, ...]
    rules: Rules


RESNET50 = Encoder(
    name='ResNet-50',
    marker='encoder/_stem/_conv/kernel',
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
    marker='encoder/_stem/_conv1_bn_act/_conv/kernel',
    backbone='AxialResNet',
    channels=(128, 256, 512, 1024, 2048),
    rules=(
        (r'^encoder/_stem/_conv(\d)_bn(?:_act)?/', lambda match: f'backbone/stem/{int(match[1]) - 1}/'),
        (r'^encoder/_stage(\d)/_block(\d+)/',
         lambda match: f'backbone/stages/{int(match[1]) - 2}/{int(match[2]) - 1}/'),
    ))  # yapf: disable

CONVNEXT = Encoder(
    name='ConvNeXt',
    marker='encoder/downsample_layers/0/layer_with_weights-0/kernel',
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

# Name of a variable within its layer -> our name, applied before all other rules.
VARIABLE_RULES: Rules = (
    (r'/(?:depthwise_)?kernel$', '/weight'),
    (r'/gamma$', '/weight'),
    (r'/beta$', '/bias'),
    (r'/moving_mean$', '/running_mean'),
    (r'/moving_variance$', '/running_var'),
)

# Everything but the encoder: regular expressions, applied one after the other.
NAME_RULES: Rules = (
    # Pixel decoder; MaX-S has the same blocks.
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
    # Predictors: one in each layer; the final one is not below the decoder.
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


def rename_variable(name: str, encoder: Encoder) -> str:
    """Name of a parameter of our ``MaskTransformer``.

    Args:
        name: Name of a variable of deeplab2, without the suffix of checkpoints.
        encoder: Encoder of the checkpoint.

    Returns:
        Our name; an unknown name is returned unchanged.
    """
    ours = apply_rules((*VARIABLE_RULES, *encoder.rules, *NAME_RULES), name)
    known = ours.startswith(('backbone/', 'panoptic_head/')) and '/_' not in ours
    return ours.replace('/', '.') if known else name


def find_encoder(names: Collection[str]) -> Encoder:
    """The encoder of a checkpoint with these variables.

    Raises:
        ValueError: it is not supported.
    """
    for encoder in ENCODERS:
        if encoder.marker in names:
            return encoder
    known = ', '.join(encoder.name for encoder in ENCODERS)
    found = sorted(name for name in names if name.startswith('encoder/'))[:3]
    raise ValueError(f'Expected an encoder among {known}, but found {", ".join(found) or "none"}')
