# kMaX-DeepLab with ResNet-50 and the 150 classes of ADE20K (deeplab2, configs/ade20k/kmax_deeplab).
_base_ = './kmax_r50.py'

num_things_classes = 100
num_stuff_classes = 50
num_classes = num_things_classes + num_stuff_classes

model = dict(
    panoptic_head=dict(
        num_things_classes=num_things_classes,
        num_stuff_classes=num_stuff_classes,
        transformer_decoder=dict(drop_path_rate=0.0),
        semantic_head=dict(num_classes=num_classes)),
    panoptic_fusion_head=dict(num_things_classes=num_things_classes, num_stuff_classes=num_stuff_classes),
    test_cfg=dict(thing_threshold=0.4, stuff_threshold=0.4))  # no area limits in deeplab2 either
