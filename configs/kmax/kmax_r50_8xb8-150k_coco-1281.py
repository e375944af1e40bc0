"""kMaX-DeepLab with ResNet-50 on COCO, crop 1281.

Paper:     arXiv 2207.04044; numbers of arXiv 2306.17319, Tables 1 and 6
Train:     tools/dist_train.sh configs/kmax/kmax_r50_8xb8-150k_coco-1281.py 8
Hardware:  batch 64; the authors' PyTorch release took 53 hours on 32 V100
Expected:  PQ 53.0 (the paper's, not measured by us), 56.6 M parameters at inference
"""
_base_ = [
    '../_base_/models/kmax_r50.py', '../_base_/datasets/coco_panoptic.py',
    '../_base_/schedules/adamw_poly.py', '../_base_/default_runtime.py'
]
