"""kMaX-DeepLab whose slots decide for themselves, by a sigmoid, on the drawn mini set.

Data:      python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic
Train:     python tools/train.py configs/mini/kmax-sigmoid_mnv3-s_1xb8-1k_mini-129.py
Hardware:  2 CPU cores
"""
_base_ = './kmax_mnv3-s_1xb8-1k_mini-129.py'

model = dict(
    panoptic_head=dict(
        transformer_decoder=dict(mask_prior=1 / 24),  # one over the number of slots
        criterion=dict(loss_mask_id=dict(type='SigmoidMaskIDLoss'))))
