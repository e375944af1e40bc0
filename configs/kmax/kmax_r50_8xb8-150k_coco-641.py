"""kMaX-DeepLab with ResNet-50 on COCO, crop 641.

Paper:     arXiv 2207.04044; the crop of the smaller models in arXiv 2306.17319, Table 1
Train:     tools/dist_train.sh configs/kmax/kmax_r50_8xb8-150k_coco-641.py 8
Hardware:  batch 64
Expected:  neither paper gives a PQ at this crop
"""
_base_ = [
    '../_base_/models/kmax_r50.py', '../_base_/datasets/coco_panoptic_641.py',
    '../_base_/schedules/adamw_poly.py', '../_base_/default_runtime.py'
]

model = dict(data_preprocessor=dict(pad_size=(641, 641)))
