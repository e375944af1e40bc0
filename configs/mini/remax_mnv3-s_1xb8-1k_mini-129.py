"""ReMaX with MobileNetV3-Small from scratch on the drawn mini set, crop 129: minutes on a CPU.

Data:      python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic
Train:     python tools/train.py configs/mini/remax_mnv3-s_1xb8-1k_mini-129.py
Hardware:  2 CPU cores
"""
_base_ = './kmax_mnv3-s_1xb8-1k_mini-129.py'

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
        criterion=dict(
            loss_mask_id=dict(type='SigmoidMaskIDLoss', loss_weight=0.3),
            loss_stage_sem=dict(type='SemanticLoss', loss_weight=0.5),
            reclass=dict(type='ReClass', smoothing=0.1))))
optim_wrapper = dict(optimizer=dict(lr=8e-3))
