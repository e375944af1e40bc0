"""ReMaX-B with semantic heads on the pixel decoder's features, before the decoder layers project them.

Paper:     arXiv 2306.17319, Sec. 3.1: another reading of "the key in each k-means cross-attention"
Train:     tools/dist_train.sh configs/ablations/interpretation_stage-feature_r50_8xb8-50k_coco-1281.py 8
Hardware:  batch 64
Expected:  the paper gives no number
"""
_base_ = '../remax/remax-b_r50_8xb8-50k_coco-1281.py'

model = dict(panoptic_head=dict(remask=dict(source='pixel_decoder')))
