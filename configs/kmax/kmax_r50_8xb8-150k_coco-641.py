"""kMaX-DeepLab with ResNet-50 on COCO, crop 641.

Paper:     arXiv 2207.04044; the crop of the smaller models in arXiv 2306.17319, Table 1
Train:     tools/dist_train.sh configs/kmax/kmax_r50_8xb8-150k_coco-641.py 8
Hardware:  batch 64
Expected:  neither paper gives a PQ at this crop
"""
_base_ = './kmax_r50_8xb8-150k_coco-1281.py'

crop_size = (641, 641)
model = dict(data_preprocessor=dict(pad_size=crop_size))
