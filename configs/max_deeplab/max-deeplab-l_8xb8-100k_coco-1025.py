"""MaX-DeepLab-L on COCO, crop 1025.

deeplab2 also gives pixels of instances below 4096 pixels the weight 3 in the semantic loss: left out here.

Paper:     arXiv 2012.00759; PQ of google-research/deeplab2, g3doc/projects/max_deeplab.md
Train:     tools/dist_train.sh configs/max_deeplab/max-deeplab-l_8xb8-100k_coco-1025.py 8
Hardware:  batch 64
Expected:  PQ 50.9 (deeplab2's from ImageNet-1K weights, not measured by us), 450.8 M parameters at inference
"""
_base_ = './max-deeplab-s_8xb8-100k_coco-1025.py'

memory = 512
model = dict(
    backbone=dict(
        num_blocks=[3, 3, 6, 3, 3],  # strides 2, 4, 8, 16, 16
        channels=[32, 64, 128, 256, 512],
        stem_channels=[64],
        conv_block='basic',
        attention_expansion=4,
        first_dual_path_stage=4,
        dual_path_channels=512,
        memory_channels=memory,
        inner_decoder_strides=[8, 4, 8, 16],
        decoder_strides=[8, 4, 8, 16, 8, 4],
        decoder_blocks=3,
        drop_path_stride=4),
    panoptic_head=dict(
        slot_channels=memory,
        # The backbone's decoder brings the semantic feature to stride 4.
        semantic_head=dict(type='SimpleSemanticHead', in_channels=[256])))

train_pipeline = [*_base_.train_pipeline[:3], dict(type='ColorPolicy'), *_base_.train_pipeline[3:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(optimizer=dict(lr=3e-4), paramwise_cfg=dict(lr_mult={'backbone.inner_decoder': 0.1}))
