"""kMaX-DeepLab with a sigmoid instead of a softmax on drawn images with many segments, crop 257.

Data:      python tools/dataset_converters/make_mini_panoptic.py data/crowded_panoptic --preset crowded
Train:     python tools/train.py configs/mini/kmax-sigmoid_mnv3-s_1xb8-2k_crowded-257.py
Hardware:  one GPU; hours on a CPU
"""
_base_ = './kmax_mnv3-s_1xb8-2k_crowded-257.py'

model = dict(
    panoptic_head=dict(
        transformer_decoder=dict(mask_prior=1 / 128),  # one over the number of slots
        criterion=dict(loss_mask_id=dict(type='SigmoidMaskIDLoss'))))
