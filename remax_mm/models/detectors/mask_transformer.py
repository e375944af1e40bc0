"""Detector of MaX-DeepLab, kMaX-DeepLab and ReMaX, which differ in its parts."""
from typing import Dict, List, Optional

import torch
from mmdet.models.detectors import MaskFormer
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.config import ConfigDict
from torch import Tensor

from ..layers import recompute_activations
from .finite_losses import FiniteLossCheck, image_names


@MODELS.register_module()
class MaskTransformer(MaskFormer):
    """mmdet's ``MaskFormer`` with semantic results and a check that the losses are finite.

    ``model(inputs, mode='tensor')`` with normalized inputs (B, 3, H, W) returns the list of
    :class:`MaskPrediction`, the final one last.

    Args:
        backbone, panoptic_head, panoptic_fusion_head, data_preprocessor: configs, as in ``MaskFormer``. The
            fusion head gets ``num_things_classes`` and ``num_stuff_classes`` from the panoptic head.
        test_cfg: see :class:`PanopticFusionHead`.
        recompute_activations: whether training computes again in the backward pass what is cheap to compute,
            instead of keeping it: the outputs of norms and activations, see :class:`Recomputation`, the
            similarities of axial attention and the upsampled masks of the losses. It takes less memory, and
            hardly more time but for tiny images.
        channels_last: whether the weights of convolutions, and thereby the feature maps, have the memory
            format channels-last, with the same results. Depthwise convolutions on a CPU and half-precision
            convolutions on a GPU are faster
            (https://docs.pytorch.org/tutorials/intermediate/memory_format_tutorial.html). It is set before
            ``DistributedDataParallel`` fixes the strides of its gradients.

    Raises:
        ValueError: the fusion head has other class counts than the panoptic head.
    """

    def __init__(self,
                 backbone: ConfigDict,
                 panoptic_head: ConfigDict,
                 panoptic_fusion_head: ConfigDict,
                 neck: Optional[ConfigDict] = None,
                 train_cfg: Optional[ConfigDict] = None,
                 test_cfg: Optional[ConfigDict] = None,
                 data_preprocessor: Optional[ConfigDict] = None,
                 init_cfg: Optional[ConfigDict] = None,
                 recompute_activations: bool = True,
                 channels_last: bool = False) -> None:
        # The parent calls a method of ConfigDict on both heads' configs, so plain dicts are converted.
        panoptic_head, panoptic_fusion_head = ConfigDict(panoptic_head), ConfigDict(panoptic_fusion_head)
        for key in ('num_things_classes', 'num_stuff_classes'):
            expected = panoptic_head.get(key)
            if expected is not None and panoptic_fusion_head.setdefault(key, expected) != expected:
                raise ValueError(f'Expected `{key}` of the fusion head to equal that of the panoptic head, '
                                 f'{expected}, but got {panoptic_fusion_head[key]}')
        super().__init__(backbone, neck, panoptic_head, panoptic_fusion_head, train_cfg, test_cfg,
                         data_preprocessor, init_cfg)
        self.finite_losses = FiniteLossCheck()
        self.recompute_activations = recompute_activations
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> 'MaskTransformer':
        """Set training or eval mode; before eval mode, check the losses of the last batch.

        Raises:
            FloatingPointError: a loss of the last batch is not finite.
        """
        if not mode:
            self.finite_losses.finish()
        return super().train(mode)

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> Dict[str, Tensor]:
        """Losses of a batch, already weighted.

        Raises:
            FloatingPointError: a loss, or a prediction that it is computed from, is not finite; names the
                terms and the images. A loss on a GPU is checked when the next batch comes.
        """
        self.finite_losses.finish()
        try:
            losses = self._compute_losses(batch_inputs, batch_data_samples)
        except FloatingPointError as error:
            raise FloatingPointError(f'{error}, on the images {image_names(batch_data_samples)}') from error
        self.finite_losses.add(losses, batch_data_samples)
        return losses

    def _compute_losses(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> Dict[str, Tensor]:
        # A function of its own, because torch.compile runs one with a `try` around a graph break in Python.
        with recompute_activations(self.recompute_activations):
            return super().loss(batch_inputs, batch_data_samples)

    def add_pred_to_datasample(self, data_samples: SampleList, results_list: List[dict]) -> SampleList:
        """Store panoptic, instance and semantic results in the fields of the data samples."""
        for data_sample, results in zip(data_samples, results_list):
            if 'sem_results' in results:
                data_sample.pred_sem_seg = results.pop('sem_results')
        return super().add_pred_to_datasample(data_samples, results_list)
