# kMaX-DeepLab with ResNet-50 and 133 COCO classes (arXiv 2207.04044).
num_things_classes = 80
num_stuff_classes = 53
crop_size = (1281, 1281)
norm_cfg = dict(type='BN', eps=1e-3, momentum=0.01)

model = dict(
    type='MaskTransformer',
    data_preprocessor=dict(type='PanopticDataPreprocessor', pad_size=crop_size),
    channels_last=True,

    # ======================= Frequently modified =======================
    backbone=dict(
        type='ResNet',
        depth=50,
        out_indices=(0, 1, 2, 3),
        norm_cfg=norm_cfg,
        norm_eval=False,
        style='pytorch',
        init_cfg=dict(
            type='Pretrained', checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth')),
    panoptic_head=dict(
        type='KMaXHead',
        num_things_classes=num_things_classes,
        num_stuff_classes=num_stuff_classes,
        in_channels=[256, 512, 1024, 2048],  # strides 4, 8, 16, 32
        norm_cfg=norm_cfg,
        pixel_decoder=dict(
            type='KMaXPixelDecoder',
            channels=[512, 256, 128, 64],  # strides 32, 16, 8, 4; a stage returns 4 times as many
            num_blocks=[1, 5, 1, 1],
            block_types=['axial', 'axial', 'bottleneck', 'bottleneck']),
        transformer_decoder=dict(
            type='KMaXTransformerDecoder', num_slots=128, num_layers=[2, 2, 2], drop_path_rate=0.2),

        # ======================= Possibly modified =======================
        semantic_head=dict(type='ASPPSemanticHead'),
        criterion=dict(
            type='PanopticCriterion',
            assigner=dict(type='PQSimilarityAssigner'),
            loss_cls=dict(type='PQClassLoss', loss_weight=3.0),
            loss_dice=dict(type='PQMaskLoss', loss_weight=3.0),
            loss_mask_id=dict(type='SoftmaxMaskIDLoss', loss_weight=0.3),
            loss_insdis=dict(type='InstanceDiscriminationLoss', num_samples=4096, sampling_temperature=1.5),
            loss_sem=dict(type='SemanticLoss', num_samples=4096, sampling_temperature=2.0))),

    # ======================= Rarely modified =======================
    panoptic_fusion_head=dict(type='KMaXFusionHead'),
    test_cfg=dict(
        panoptic_on=True,
        instance_on=False,
        semantic_on=False,
        thing_threshold=0.7,
        stuff_threshold=0.5,
        pixel_threshold=0.4,
        overlap_threshold=0.8,
        class_order_weight=1.0,
        mask_order_weight=1.0,
        thing_area=0,
        stuff_area=0))
