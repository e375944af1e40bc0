"""A small ReMaX from scratch on data of your own, crop 129: minutes on a CPU, see docs/own_data.md.

Train:     python tools/train.py configs/own_data/remax_mnv3-s_1xb8-600_own-129.py
Hardware:  2 CPU cores
Expected:  PQ 69.0 and 69.5 on the drawn example (two runs, mask_prior 1/24)
"""
_base_ = '../mini/remax_mnv3-s_1xb8-1k_mini-129.py'
from remax_mm.panoptic_format import count_classes

# The PNGs are in a folder with the name of the JSON.
data_root = 'data/own/'
train_json, train_images = 'panoptic_train.json', 'images/train/'
val_json, val_images = 'panoptic_val.json', 'images/val/'
iterations = 600

num_things, num_stuff = count_classes(data_root + train_json, default=(7, 5))
model = dict(panoptic_head=dict(num_things_classes=num_things, num_stuff_classes=num_stuff))
own_data = dict(type='PanopticMapDataset', data_root=data_root)
train_files = dict(ann_file=train_json, data_prefix=dict(img=train_images, seg=train_json[:-len('.json')]))
val_files = dict(ann_file=val_json, data_prefix=dict(img=val_images, seg=val_json[:-len('.json')]))
train_dataloader = dict(dataset=dict(**own_data, **train_files))
val_dataloader = dict(dataset=dict(**own_data, **val_files))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=iterations, val_interval=iterations)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=iterations // 10),
    dict(type='MultiStepLR', by_epoch=False, milestones=[iterations * 85 // 100, iterations * 95 // 100]),
]
