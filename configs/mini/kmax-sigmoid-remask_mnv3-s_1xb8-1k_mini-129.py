"""kMaX-DeepLab with a sigmoid and ReMask, that is, ReMaX without ReClass, on the drawn mini set.

Data:      python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic
Train:     python tools/train.py configs/mini/kmax-sigmoid-remask_mnv3-s_1xb8-1k_mini-129.py
Hardware:  2 CPU cores
"""
_base_ = './remax_mnv3-s_1xb8-1k_mini-129.py'

model = dict(panoptic_head=dict(criterion=dict(reclass=None)))
optim_wrapper = dict(optimizer=dict(lr=4e-3))
