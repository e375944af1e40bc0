"""ReMaX on the mini dataset as a new-style config: a template for configs of your own.

It is the same as configs/mini/remax_mnv3-s_1xb8-1k_mini-129.py. A config elsewhere starts with

    with read_base():
        from remax_mm.configs.remax_mnv3_s_1xb8_1k_mini_129 import *

Data:      python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic
Train:     python tools/train.py remax_mm/configs/remax_mnv3_s_1xb8_1k_mini_129.py
Hardware:  2 CPU cores
"""
from mmengine.config import read_base

with read_base():
    from .kmax_mnv3_s_1xb8_1k_mini_129 import *  # noqa: F403

from remax_mm.models.heads import StageSemanticHead
from remax_mm.models.losses import SemanticLoss, SigmoidMaskIDLoss
from remax_mm.models.relaxations import ReClass, ReMask

model.update(  # noqa: F405
    panoptic_head=dict(
        transformer_decoder=dict(mask_prior=0.11),
        remask=dict(type=ReMask, semantic_head=dict(type=StageSemanticHead, aspp_channels=64)),
        criterion=dict(
            loss_mask_id=dict(type=SigmoidMaskIDLoss),
            loss_stage_sem=dict(type=SemanticLoss, loss_weight=0.5),
            reclass=dict(type=ReClass))))
optim_wrapper.update(optimizer=dict(lr=8e-3))  # noqa: F405
