# mmdet's own MaskFormer, small: ResNet-18 of half the width from scratch, 3 decoder layers of width 64,
# 24 queries, the 12 classes of the mini set. Structure and losses are those of mmdet's
# maskformer_r50_ms-16xb1-75e_coco.py.
num_things_classes = 7
num_stuff_classes = 5
num_classes = num_things_classes + num_stuff_classes
channels = 64
attention = dict(embed_dims=channels, num_heads=4, dropout=0.0, batch_first=True)
position = dict(num_feats=channels // 2, normalize=True)

model = dict(
    type='MaskFormer',
    data_preprocessor=dict(
        type='MaskFormerDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True),
    backbone=dict(type='ResNet', depth=18, stem_channels=32, base_channels=32, norm_eval=False),
    panoptic_head=dict(
        type='MaskFormerHead',
        in_channels=[32, 64, 128, 256],
        feat_channels=channels,
        out_channels=channels,
        num_things_classes=num_things_classes,
        num_stuff_classes=num_stuff_classes,
        num_queries=24,
        pixel_decoder=dict(
            type='TransformerEncoderPixelDecoder',
            norm_cfg=dict(type='GN', num_groups=16),
            act_cfg=dict(type='ReLU'),
            encoder=dict(
                num_layers=2,
                layer_cfg=dict(
                    self_attn_cfg=attention,
                    ffn_cfg=dict(embed_dims=channels, feedforward_channels=4 * channels))),
            positional_encoding=position),
        positional_encoding=position,
        transformer_decoder=dict(
            num_layers=3,
            layer_cfg=dict(
                self_attn_cfg=attention,
                cross_attn_cfg=attention,
                ffn_cfg=dict(embed_dims=channels, feedforward_channels=4 * channels)),
            return_intermediate=True),
        loss_cls=dict(type='CrossEntropyLoss', loss_weight=1.0, class_weight=[1.0] * num_classes + [0.1]),
        loss_mask=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=20.0),
        loss_dice=dict(
            type='DiceLoss', use_sigmoid=True, activate=True, naive_dice=True, eps=1.0, loss_weight=1.0)),
    panoptic_fusion_head=dict(
        type='MaskFormerFusionHead',
        num_things_classes=num_things_classes,
        num_stuff_classes=num_stuff_classes),
    train_cfg=dict(
        assigner=dict(
            type='HungarianAssigner',
            match_costs=[
                dict(type='ClassificationCost', weight=1.0),
                dict(type='FocalLossCost', weight=20.0, binary_input=True),
                dict(type='DiceCost', weight=1.0, pred_act=True, eps=1.0)
            ]),
        sampler=dict(type='MaskPseudoSampler')),
    test_cfg=dict(
        panoptic_on=True, instance_on=False, object_mask_thr=0.8, iou_thr=0.8, filter_low_score=False))
