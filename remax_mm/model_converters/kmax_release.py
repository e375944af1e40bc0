"""Parameter names and class orders of the public PyTorch kMaX-DeepLab (bytedance/kmax-deeplab), and ours.

Class outputs get the class order of our datasets. The release's auxiliary semantic head for COCO and ADE20K
has a row for void, which is never a target (kmax_deeplab/modeling/criterion.py ignores it). Ours has none, so
the row is dropped. It is the last row, or the first one in files from TensorFlow, whose rows are the ids of
the dataset (convert-tf-weights-to-d2.py reorders the class heads only).
"""
import re
from typing import Any, Callable, Dict, Mapping, NamedTuple, Tuple, Union

import torch
from torch import Tensor

from remax_mm.datasets import (SCENE_PARSING_CLASSES, ADE20KPanopticMapDataset, CityscapesPanopticMapDataset,
                               CocoPanopticMapDataset)

SEMANTIC_HEAD = 'panoptic_head.semantic_head.'
CLASS_HEAD_OF_RELEASE = 'sem_seg_head.predictor._predcitor._transformer_class_head.conv.bias'

Rules = Tuple[Tuple[str, Union[str, Callable[[re.Match], str]]], ...]

# Name in the release -> our name: regular expressions, applied one after the other.
NAME_RULES: Rules = (
    # Backbone: Detectron2's ResNet is mmdet's; ConvNeXt keeps its names.
    (r'^backbone\.stem\.', 'backbone.'),
    (r'^backbone\.res(\d)\.', lambda match: f'backbone.layer{int(match[1]) - 1}.'),
    (r'^(backbone\..*)shortcut\.norm\.', r'\1downsample.1.'),
    (r'^(backbone\..*)shortcut\.', r'\1downsample.0.'),
    (r'^(backbone\.(?:.*\.)?)conv(\d)\.norm\.', r'\1bn\2.'),
    # Auxiliary semantic head.
    (r'^sem_seg_head\.predictor\._auxiliary_semantic_predictor\.', SEMANTIC_HEAD),
    (r'\._aspp\._aspp_conv(\d)\.conv\.', r'.aspp.branches.\1.conv.'),
    (r'\._aspp\._aspp_conv(\d)\.norm\.', r'.aspp.branches.\1.bn.'),
    (r'\._aspp\._aspp_pool\.', '.aspp.pool.project.'),
    (r'\._aspp\._proj_conv_bn_act\.', '.aspp.project.'),
    (r'\._low_level_projection_os8\.', '.fuse_res3.reduce.'),
    (r'\._low_level_projection_os4\.', '.fuse_res2.reduce.'),
    (r'\._low_level_fusion_os8_conv(\d)_bn_act\.', r'.fuse_res3.fuse.\1.'),
    (r'\._low_level_fusion_os4_conv(\d)_bn_act\.', r'.fuse_res2.fuse.\1.'),
    (r'\.conv_block_(\d)\.', r'.head.\1.'),
    (r'\.final_conv\.', '.classifier.'),
    (r'^(panoptic_head\.semantic_head\.)([01])\.', r'\1head.\2.'),
    (r'^(panoptic_head\.semantic_head\.)2\.', r'\1classifier.'),
    # Pixel decoder.
    (r'^sem_seg_head\.pixel_decoder\.', 'panoptic_head.pixel_decoder.'),
    (r'\._in_norms\.', '.input_norms.'),
    (r'\._stages\.(\d+)\._blocks\.', r'.stages.\1.'),
    (r'\._resized_fuses\.(\d+)\._conv_bn_low\.', r'.fuses.\1.coarse.1.'),
    (r'\._resized_fuses\.(\d+)\._conv_bn_high\.', r'.fuses.\1.fine.1.'),
    (r'\._shortcut\.', '.shortcut.'),
    (r'\._conv1_bn_act\.', '.reduce.'),
    (r'\._conv2_bn_act\.', '.spatial.'),
    (r'\._conv3_bn\.', '.expand.'),
    (r'\._attention\._(height|width)_axis\.', r'.attention.\1_axis.'),
    (r'_axis\.qkv_transform\.conv\.', '_axis.qkv.conv.'),
    (r'_axis\._batch_norm_qkv\.', '_axis.qkv.norm.'),
    (r'_axis\._(query|key|value)_rpe\._embeddings\.weight$', r'_axis.\1_relative_position.table'),
    (r'_axis\._batch_norm_similarity\.', '_axis.similarity_norm.'),
    (r'_axis\._batch_norm_retrieved_output\.', '_axis.output_norm.'),
    # Transformer decoder.
    (r'^sem_seg_head\.predictor\.', 'panoptic_head.transformer_decoder.'),
    (r'\._cluster_centers\.weight$', '.cluster_centers'),
    (r'\._(class|mask)_embedding_projection\.', r'.\1_embedding.'),
    (r'\._kmax_transformer_layers\.', '.layers.'),
    (r'\._predcitor\.', '.predictor.'),
    (r'\._pixel_space_head_conv(\d)bnact\.', r'.pixel_head.\1.'),
    (r'\._pixel_space_head_last_convbn\.', '.pixel_embedding.'),
    (r'\._transformer_mask_head\.', '.mask_kernel.'),
    (r'\._transformer_class_head\.', '.class_head.'),
    (r'\._pixel_space_mask_batch_norm\.', '.mask_norm.'),
    (r'\._query_conv1_bn_act\.', '.slot_projection.'),
    (r'\._pixel_conv1_bn_act\.', '.pixel_projection.'),
    (r'\._pixel_v_conv_bn\.', '.pixel_value.'),
    (r'\._kmeans_query_batch_norm_retrieved_value\.', '.update_norm.'),
    (r'\._kmeans_query_conv3_bn\.', '.update.'),
    (r'\._query_qkv_conv_bn\.', '.self_attention.qkv.'),
    (r'\._query_self_attention\._batch_norm_similarity\.', '.self_attention.similarity_norm.'),
    (r'\._query_self_attention\._batch_norm_retrieved_value\.', '.self_attention.value_norm.'),
    (r'\._query_conv3_bn\.', '.self_attention.project.'),
    (r'\._query_ffn_conv1_bn_act\.', '.ffn.0.'),
    (r'\._query_ffn_conv2_bn\.', '.ffn.1.'),
)


class ReleaseDataset(NamedTuple):
    """A dataset that the release was trained on.

    Attributes:
        name: Name for messages.
        classes: Classes in the order of the release's outputs, without void.
        metainfo: Metainfo of our dataset; its ``classes`` have our order.
        config: Config of the model that the release trained with ResNet-50, below the folder ``configs``.
    """
    name: str
    classes: Tuple[str, ...]
    metainfo: Mapping[str, Any]
    config: str


COCO = ReleaseDataset('COCO', CocoPanopticMapDataset.METAINFO['classes'], CocoPanopticMapDataset.METAINFO,
                      '_base_/models/kmax_r50.py')
# kmax_deeplab/data/datasets/register_ade20k_panoptic.py has the class order of the annotations.
ADE20K = ReleaseDataset('ADE20K', SCENE_PARSING_CLASSES, ADE20KPanopticMapDataset.METAINFO,
                        '_base_/models/kmax_r50_ade20k.py')
_CITYSCAPES = CityscapesPanopticMapDataset.METAINFO
# detectron2/data/datasets/cityscapes_panoptic.py of facebookresearch/detectron2 has the order of train ids.
CITYSCAPES = ReleaseDataset('Cityscapes', _CITYSCAPES['stuff_classes'] + _CITYSCAPES['thing_classes'],
                            _CITYSCAPES, 'kmax/kmax_r50-os4_8xb4-60k_cityscapes-1025x2049.py')
DATASET_OF_CLASS_OUTPUTS = {134: COCO, 151: ADE20K, 20: CITYSCAPES}


def rename(name: str) -> str:
    """Our name of a parameter of the release; an unknown name is returned unchanged."""
    return apply_rules(NAME_RULES, name)


def apply_rules(rules: Rules, name: str) -> str:
    """Apply regular expressions to a name, one after the other."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def convert_weights(weights: Mapping[str, Tensor]) -> Tuple[Dict[str, Tensor], ReleaseDataset]:
    """Rename the weights of the release and put their class outputs into our order.

    Args:
        weights: Weights of the release, by its names.

    Returns:
        All weights by our names, and the dataset they were trained on.

    Raises:
        ValueError: the weights are not those of kMaX-DeepLab, or their number of classes is that of no
            supported dataset.
    """
    if CLASS_HEAD_OF_RELEASE not in weights:
        some = ', '.join(sorted(weights)[:3]) or 'none'
        raise ValueError('Expected weights of the public PyTorch kMaX-DeepLab, whose names start with '
                         f'`backbone.` and `sem_seg_head.`, but found {len(weights)} others, such as: {some}')
    dataset = find_dataset(weights[CLASS_HEAD_OF_RELEASE].numel())
    rows = torch.tensor([dataset.classes.index(name) for name in dataset.metainfo['classes']])
    num_classes = len(rows)
    rows_and_void = torch.cat([rows, torch.tensor([num_classes])])
    from_tensorflow = not any(name.endswith('num_batches_tracked') for name in weights)

    converted = {}
    for name, value in weights.items():
        ours = rename(name)
        if '.class_head.' in ours and value.shape[:1] == (num_classes + 1, ):
            value = value[rows_and_void]
        elif ours.startswith(f'{SEMANTIC_HEAD}classifier.') and value.shape[:1] == (num_classes + 1, ):
            value = value[rows + 1 if from_tensorflow else rows]
        elif ours.startswith(f'{SEMANTIC_HEAD}classifier.') and value.shape[:1] == (num_classes, ):
            value = value[rows]
        converted[ours] = value.float() if value.is_floating_point() else value
    return converted, dataset


def find_dataset(class_outputs: int) -> ReleaseDataset:
    """The dataset of a class head with this number of outputs, void included.

    Raises:
        ValueError: it is not a supported dataset.
    """
    if class_outputs not in DATASET_OF_CLASS_OUTPUTS:
        known = ', '.join(f'{number} ({dataset.name})'
                          for number, dataset in DATASET_OF_CLASS_OUTPUTS.items())
        raise ValueError(
            f'Expected a class head of {known} outputs, void included, but found {class_outputs}')
    return DATASET_OF_CLASS_OUTPUTS[class_outputs]
