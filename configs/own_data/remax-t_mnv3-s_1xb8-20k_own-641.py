"""ReMaX-T on data of your own, crop 641: a template, see docs/own_data.md. Copy it, then change the paths.

Train:     python tools/train.py configs/own_data/remax-t_mnv3-s_1xb8-20k_own-641.py
Hardware:  one GPU, batch 8
Expected:  depends on the data
"""
_base_ = '../remax/remax-t_mnv3-s_8xb8-150k_coco-641.py'
from remax_mm.panoptic_format import count_classes

# The PNGs are in a folder with the name of the JSON.
data_root = 'data/own/'
train_json, train_images = 'panoptic_train.json', 'images/train/'
val_json, val_images = 'panoptic_val.json', 'images/val/'
iterations = 20000

num_things, num_stuff = count_classes(data_root + train_json, default=(7, 5))
model = dict(
    panoptic_head=dict(
        num_things_classes=num_things,
        num_stuff_classes=num_stuff,
        # One over the number of slots: a short schedule cannot learn the bias that the sigmoid needs.
        transformer_decoder=dict(mask_prior=1 / 128)))
own_data = dict(type='PanopticMapDataset', data_root=data_root)
train_files = dict(ann_file=train_json, data_prefix=dict(img=train_images, seg=train_json[:-len('.json')]))
val_files = dict(ann_file=val_json, data_prefix=dict(img=val_images, seg=val_json[:-len('.json')]))
train_dataloader = dict(dataset=dict(**own_data, **train_files))
val_dataloader = dict(dataset=dict(**own_data, **val_files))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=iterations, val_interval=iterations // 10)
# AdamW's rate follows the square root of the batch, here 8 for the recipe's 64.
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=iterations // 20),
    dict(type='MultiStepLR', by_epoch=False, milestones=[iterations * 85 // 100, iterations * 95 // 100]),
]
