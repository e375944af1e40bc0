# kMaX-DeepLab with ResNet-50 and the 150 classes of ADE20K (deeplab2, configs/ade20k/kmax_deeplab).
_base_ = './kmax_r50.py'

model = dict(
    panoptic_head=dict(
        num_things_classes=100, num_stuff_classes=50, transformer_decoder=dict(drop_path_rate=0.0)),
    test_cfg=dict(thing_threshold=0.4, stuff_threshold=0.4))  # no area limits in deeplab2 either
