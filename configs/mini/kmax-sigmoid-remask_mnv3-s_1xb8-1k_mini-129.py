"""kMaX-DeepLab with a sigmoid and ReMask, that is, ReMaX without ReClass, on the drawn mini set.

Data:      python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic
Train:     python tools/train.py configs/mini/kmax-sigmoid-remask_mnv3-s_1xb8-1k_mini-129.py
Hardware:  2 CPU cores
"""
_base_ = './kmax-sigmoid_mnv3-s_1xb8-1k_mini-129.py'

model = dict(
    panoptic_head=dict(
        transformer_decoder=dict(
            num_relaxed=2,
            remask=dict(
                type='ReMask',
                semantic_head=dict(
                    type='StageSemanticHead',
                    in_channels=128,
                    num_classes=12,
                    aspp_channels=64,
                    norm_cfg=_base_.norm_cfg))),
        criterion=dict(loss_stage_sem=dict(type='SemanticLoss', loss_weight=0.5))))
