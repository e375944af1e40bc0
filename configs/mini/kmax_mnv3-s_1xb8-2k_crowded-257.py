"""kMaX-DeepLab with MobileNetV3-Small from scratch on drawn images with many segments, crop 257.

Data:      python tools/dataset_converters/make_mini_panoptic.py data/crowded_panoptic --preset crowded
Train:     python tools/train.py configs/mini/kmax_mnv3-s_1xb8-2k_crowded-257.py
Hardware:  one GPU; hours on a CPU
"""
_base_ = './kmax_mnv3-s_1xb8-1k_mini-129.py'

image_size = (257, 257)
model = dict(
    data_preprocessor=dict(pad_size=image_size),
    panoptic_head=dict(num_things_classes=35, num_stuff_classes=9, transformer_decoder=dict(num_slots=128)))

load, load_map, _, _, _, flip, pack = _base_.train_pipeline
train_pipeline = [
    load, load_map,
    dict(
        type='RandomChoiceResize',
        scales=[((image_size[0] - 1) * tenths // 10 + 1, ) * 2 for tenths in range(8, 14)],
        keep_ratio=True),
    dict(type='RandomPad', size=image_size),
    dict(type='RandomCrop', crop_size=image_size), flip, pack
]
test_pipeline = [load, dict(type='Resize', scale=image_size, keep_ratio=True), *_base_.test_pipeline[2:]]
tta_pipeline = [*test_pipeline[:-1], _base_.tta_pipeline[-1]]

crowded = dict(type='CrowdedPanopticMapDataset', data_root='data/crowded_panoptic/')
train_dataloader = dict(num_workers=2, dataset=dict(**crowded, pipeline=train_pipeline))
val_dataloader = dict(num_workers=2, dataset=dict(**crowded, pipeline=test_pipeline))
test_dataloader = val_dataloader

iterations = 2000
train_cfg = dict(max_iters=iterations, val_interval=iterations)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='MultiStepLR', by_epoch=False, milestones=[iterations * 85 // 100, iterations * 95 // 100]),
]
