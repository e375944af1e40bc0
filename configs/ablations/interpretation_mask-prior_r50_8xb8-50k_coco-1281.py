"""ReMaX-B whose masks start with the probability 1 / 128, one over the number of slots, instead of 1/2.

Paper:     arXiv 2306.17319 does not state the initial bias; the public kMaX-DeepLab codes start it at 0
Train:     tools/dist_train.sh configs/ablations/interpretation_mask-prior_r50_8xb8-50k_coco-1281.py 8
Hardware:  batch 64
Expected:  the paper gives no number
"""
_base_ = '../remax/remax-b_r50_8xb8-50k_coco-1281.py'

model = dict(panoptic_head=dict(transformer_decoder=dict(mask_prior=1 / 128)))
