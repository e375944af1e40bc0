# kMaX-DeepLab with ResNet-50 and the 19 classes of Cityscapes (deeplab2, configs/cityscapes/kmax_deeplab).
# It has twice the mask slots, a fifth stage of the pixel decoder at stride 2, where the masks then are, and a
# semantic head straight on stride 32. In float32 the mask logits of one image take 0.5 GB, and a training
# step holds them for seven predictions.
_base_ = './kmax_r50.py'

crop_size = (1025, 2049)

model = dict(
    data_preprocessor=dict(pad_size=crop_size),
    backbone=dict(
        _delete_=True,
        type='StemResNet',
        depth=50,
        out_features=['stem', 'res2', 'res3', 'res4', 'res5'],
        norm_cfg=_base_.norm_cfg,
        norm_eval=False,
        style='pytorch',
        init_cfg=dict(
            type='Pretrained', checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth')),
    panoptic_head=dict(
        num_things_classes=8,
        num_stuff_classes=11,
        in_channels=[64, 256, 512, 1024, 2048],  # strides 2, 4, 8, 16, 32
        pixel_decoder=dict(
            channels=[512, 256, 128, 64, 32],
            num_blocks=[1, 5, 1, 1, 1],
            block_types=['axial', 'axial', 'bottleneck', 'bottleneck', 'bottleneck']),
        transformer_decoder=dict(num_slots=256, num_layers=[2, 2, 2, 0]),  # none at stride 4
        semantic_head=dict(type='SimpleSemanticHead'),
        criterion=dict(
            loss_insdis=dict(sampling_temperature=0.6),
            # All pixels at stride 32, as in bytedance/kmax-deeplab; deeplab2 takes the hardest fifth of them
            # and gives those of small instances a weight of 3.
            loss_sem=dict(_delete_=True, type='SemanticLoss'))),
    # deeplab2 also drops things below 256 and stuff below 2048 pixels; bytedance/kmax-deeplab drops nothing.
    test_cfg=dict(thing_threshold=0.5, stuff_threshold=0.3, overlap_threshold=0.9, mask_order_weight=0.0))
