"""Names of parameters here, and in the public kMaX-DeepLab PyTorch code."""
import re
from typing import Any, Dict, Iterable, Tuple

# Ours -> the reference's, applied one after the other to a key without its `panoptic_head.` prefix.
_HEAD_RULES = (
    (r'^semantic_head\.', 'sem_seg_head.predictor._auxiliary_semantic_predictor.'),
    (r'\.aspp\.branches\.(\d)\.conv\.', r'._aspp._aspp_conv\1.conv.'),
    (r'\.aspp\.branches\.(\d)\.bn\.', r'._aspp._aspp_conv\1.norm.'),
    (r'\.aspp\.pool\.project\.', '._aspp._aspp_pool.'),
    (r'\.aspp\.project\.', '._aspp._proj_conv_bn_act.'),
    (r'\.fuse_res3\.reduce\.', '._low_level_projection_os8.'),
    (r'\.fuse_res2\.reduce\.', '._low_level_projection_os4.'),
    (r'\.fuse_res3\.fuse\.(\d)\.', r'._low_level_fusion_os8_conv\1_bn_act.'),
    (r'\.fuse_res2\.fuse\.(\d)\.', r'._low_level_fusion_os4_conv\1_bn_act.'),
    (r'_semantic_predictor\.head\.(\d)\.', r'_semantic_predictor.conv_block_\1.'),
    (r'_semantic_predictor\.classifier\.', '_semantic_predictor.final_conv.'),
    (r'^pixel_decoder\.input_norms\.', 'sem_seg_head.pixel_decoder._in_norms.'),
    (r'^pixel_decoder\.stages\.(\d+)\.(\d+)\.', r'sem_seg_head.pixel_decoder._stages.\1._blocks.\2.'),
    (r'^pixel_decoder\.fuses\.(\d+)\.coarse\.1\.',
     r'sem_seg_head.pixel_decoder._resized_fuses.\1._conv_bn_low.'),
    (r'^pixel_decoder\.fuses\.(\d+)\.fine\.1\.',
     r'sem_seg_head.pixel_decoder._resized_fuses.\1._conv_bn_high.'),
    (r'\.shortcut\.', '._shortcut.'),
    (r'\.reduce\.', '._conv1_bn_act.'),
    (r'\.spatial\.', '._conv2_bn_act.'),
    (r'\.expand\.', '._conv3_bn.'),
    (r'\.attention\.(height|width)_axis\.', r'._attention._\1_axis.'),
    (r'_axis\.qkv\.conv\.', '_axis.qkv_transform.conv.'),
    (r'_axis\.qkv\.norm\.', '_axis._batch_norm_qkv.'),
    (r'\.(query|key|value)_relative_position\.table$', r'._\1_rpe._embeddings.weight'),
    (r'_axis\.similarity_norm\.', '_axis._batch_norm_similarity.'),
    (r'_axis\.output_norm\.', '_axis._batch_norm_retrieved_output.'),
    (r'^transformer_decoder\.cluster_centers$', 'sem_seg_head.predictor._cluster_centers.weight'),
    (r'^transformer_decoder\.class_embedding\.', 'sem_seg_head.predictor._class_embedding_projection.'),
    (r'^transformer_decoder\.mask_embedding\.', 'sem_seg_head.predictor._mask_embedding_projection.'),
    (r'^transformer_decoder\.predictor\.', 'sem_seg_head.predictor._predcitor.'),
    (r'^transformer_decoder\.layers\.(\d+)\.', r'sem_seg_head.predictor._kmax_transformer_layers.\1.'),
    (r'\.predictor\.(?=pixel_|mask_|class_)', '._predcitor.'),
    (r'\.pixel_head\.0\.', '._pixel_space_head_conv0bnact.'),
    (r'\.pixel_head\.1\.', '._pixel_space_head_conv1bnact.'),
    (r'\.pixel_embedding\.', '._pixel_space_head_last_convbn.'),
    (r'\.mask_kernel\.', '._transformer_mask_head.'),
    (r'\.class_head\.', '._transformer_class_head.'),
    (r'\.mask_norm\.', '._pixel_space_mask_batch_norm.'),
    (r'\.slot_projection\.', '._query_conv1_bn_act.'),
    (r'\.pixel_projection\.', '._pixel_conv1_bn_act.'),
    (r'\.pixel_value\.', '._pixel_v_conv_bn.'),
    (r'\.update_norm\.', '._kmeans_query_batch_norm_retrieved_value.'),
    (r'\.update\.', '._kmeans_query_conv3_bn.'),
    (r'\.self_attention\.qkv\.', '._query_qkv_conv_bn.'),
    (r'\.self_attention\.similarity_norm\.', '._query_self_attention._batch_norm_similarity.'),
    (r'\.self_attention\.value_norm\.', '._query_self_attention._batch_norm_retrieved_value.'),
    (r'\.self_attention\.project\.', '._query_conv3_bn.'),
    (r'\.ffn\.0\.', '._query_ffn_conv1_bn_act.'),
    (r'\.ffn\.1\.', '._query_ffn_conv2_bn.'),
)

_RESNET_RULES = (
    (r'^layer(\d)', lambda match: f'res{int(match[1]) + 1}'),
    (r'bn(\d)\.', r'conv\1.norm.'),
    (r'downsample\.0\.', 'shortcut.'),
    (r'downsample\.1\.', 'shortcut.norm.'),
    (r'^(?!res)', 'stem.'),
    (r'^', 'backbone.'),
)


def reference_head_names(keys: Iterable[str]) -> Dict[str, str]:
    """Our key -> the reference's key, for keys of ``KMaXHead``."""
    return {key: _apply(_HEAD_RULES, key) for key in keys}


def reference_model_names(keys: Iterable[str]) -> Dict[str, str]:
    """Our key -> the reference's key, for keys of ``KMaXDeepLab`` with a ResNet."""
    names = {}
    for key in keys:
        part, name = key.split('.', 1)
        names[key] = _apply({'backbone': _RESNET_RULES, 'panoptic_head': _HEAD_RULES}[part], name)
    return names


def _apply(rules: Iterable[Tuple[str, Any]], name: str) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
