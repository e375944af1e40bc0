"""MaX-DeepLab-S with the relaxations of ReMaX; COCO, crop 641.

Paper:     arXiv 2306.17319, which relaxes kMaX-DeepLab only
Train:     tools/dist_train.sh configs/max_deeplab/remax-max-deeplab-s_8xb8-100k_coco-641.py 8
Hardware:  batch 64
Expected:  no PQ is published; at inference the same network as its parent
"""
_base_ = ['./max-deeplab-s_8xb8-100k_coco-641.py', '../_base_/relaxations/remax.py']

model = dict(panoptic_head=_base_.remax)
