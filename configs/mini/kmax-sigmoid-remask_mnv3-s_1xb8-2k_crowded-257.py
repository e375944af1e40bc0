"""kMaX-DeepLab with a sigmoid and ReMask, without ReClass, on drawn images with many segments, crop 257.

Data:      python tools/dataset_converters/make_mini_panoptic.py data/crowded_panoptic --preset crowded
Train:     python tools/train.py configs/mini/kmax-sigmoid-remask_mnv3-s_1xb8-2k_crowded-257.py
Hardware:  one GPU; hours on a CPU
"""
_base_ = './remax_mnv3-s_1xb8-2k_crowded-257.py'

model = dict(panoptic_head=dict(criterion=dict(reclass=None)))
