# MaX-DeepLab-S with 133 COCO classes (arXiv 2012.00759; deeplab2, configs/coco/max_deeplab).
num_things_classes = 80
num_stuff_classes = 53
crop_size = (641, 641)
norm_cfg = dict(type='BN', eps=1e-3, momentum=0.01)
act_cfg = dict(type='ReLU')

model = dict(
    type='MaskTransformer',  # The detector is the same; what is MaX-DeepLab's is in its parts.
    data_preprocessor=dict(type='PanopticDataPreprocessor', pad_size=crop_size),
    channels_last=True,

    # ======================= Frequently modified =======================
    backbone=dict(
        type='DualPathAxialResNet',
        num_blocks=[3, 4, 6, 3],  # strides 4, 8, 16, 16
        channels=[64, 128, 256, 512],  # a stage returns 4 times as many
        num_slots=128,
        drop_path_rate=0.2,
        norm_cfg=norm_cfg,
        act_cfg=act_cfg,
        # ImageNet weights are public for TensorFlow only; put a checkpoint of your own here.
        init_cfg=None),
    panoptic_head=dict(
        type='MaXDeepLabHead',
        num_things_classes=num_things_classes,
        num_stuff_classes=num_stuff_classes,
        in_channels=256,  # of the backbone at stride 4
        slot_channels=256,  # of the backbone's memory
        norm_cfg=norm_cfg,
        act_cfg=act_cfg,

        # ======================= Possibly modified =======================
        semantic_head=dict(type='ASPPSemanticHead', in_channels=[256, 512, 1024,
                                                                 2048]),  # strides 4, 8, 16, 16
        criterion=dict(
            type='PanopticCriterion',
            assigner=dict(type='PQSimilarityAssigner'),
            loss_cls=dict(type='PQClassLoss', loss_weight=3.0),
            loss_dice=dict(type='PQMaskLoss', loss_weight=3.0),
            loss_mask_id=dict(type='SoftmaxMaskIDLoss', loss_weight=0.3),
            loss_insdis=dict(type='MeanEmbeddingDiscriminationLoss', num_things_classes=num_things_classes),
            loss_sem=dict(type='SemanticLoss'))),

    # ======================= Rarely modified =======================
    panoptic_fusion_head=dict(type='MaXFusionHead'),
    test_cfg=dict(
        panoptic_on=True,
        instance_on=False,
        semantic_on=False,
        class_threshold=0.7,
        pixel_threshold=0.4,
        # In pixels of the original image; deeplab2 counts them at the size of the crop.
        thing_area=100,
        stuff_area=1600))
