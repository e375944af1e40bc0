"""kMaX-DeepLab on the mini set, evaluated by PQ, AP of instances and mIoU from one forward pass.

Data:      python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic
Train:     python tools/train.py configs/mini/kmax-all-tasks_mnv3-s_1xb8-1k_mini-129.py
Hardware:  2 CPU cores
Note:      what stands below works in any config; on COCO, PanopticInstanceAPMetric takes
           ann_file='data/coco/annotations/instances_val2017.json'. For a finished model,
           `tools/test.py --all-tasks` does the same with any config as it is.
"""
_base_ = './kmax_mnv3-s_1xb8-1k_mini-129.py'

model = dict(test_cfg=dict(panoptic_on=True, instance_on=True, semantic_on=True))
val_evaluator = [
    dict(type='PanopticQualityMetric', classwise=True, backend_args=_base_.backend_args),
    dict(type='PanopticInstanceAPMetric', classwise=True, backend_args=_base_.backend_args),
    dict(type='PanopticSemanticIoUMetric', classwise=True, backend_args=_base_.backend_args)
]
test_evaluator = val_evaluator
