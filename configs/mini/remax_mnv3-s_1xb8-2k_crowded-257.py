"""ReMaX with MobileNetV3-Small from scratch on drawn images with many segments, crop 257.

Data:      python tools/dataset_converters/make_mini_panoptic.py data/crowded_panoptic --preset crowded
Train:     python tools/train.py configs/mini/remax_mnv3-s_1xb8-2k_crowded-257.py
Hardware:  one GPU; hours on a CPU
"""
_base_ = ['./kmax_mnv3-s_1xb8-2k_crowded-257.py', '../_base_/relaxations/remax.py']

remax = _base_.remax
remax.remask.semantic_head.aspp_channels = 64
# One over the number of slots: this run is too short to learn the bias that the sigmoid needs.
model = dict(panoptic_head=dict(remax, transformer_decoder=dict(mask_prior=1 / 128)))
