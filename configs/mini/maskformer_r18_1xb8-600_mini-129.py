"""mmdet's own MaskFormer with ResNet-18 from scratch on the drawn mini set, crop 129: minutes on a CPU.

Data:      python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic
Train:     python tools/train.py configs/mini/maskformer_r18_1xb8-600_mini-129.py
Hardware:  2 CPU cores
"""
_base_ = [
    '../_base_/models/maskformer_r18.py', '../_base_/datasets/mini_panoptic.py',
    '../_base_/schedules/mini_600.py', '../_base_/default_runtime.py'
]
