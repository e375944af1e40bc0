"""mmdet's MaskFormer with ResNet-50 on COCO panoptic, as in mmdet except for the ground truth.

It is loaded as index maps, not as stacks of masks, so neither training nor PQ needs panopticapi.

Paper:     arXiv 2107.06278
Train:     tools/dist_train.sh configs/mask2former/maskformer_r50_ms-16xb1-75e_coco.py 16
Hardware:  16 GPUs, batch 16
Expected:  what mmdet's config of the same name gives; not trained by us
"""
_base_ = 'mmdet::maskformer/maskformer_r50_ms-16xb1-75e_coco.py'
custom_imports = dict(imports=['remax_mm'], allow_failed_imports=False)

model = dict(data_preprocessor=dict(type='MaskFormerDataPreprocessor', pad_mask=False, pad_seg=False))
# Flip, and resize or resize, crop and resize, as in mmdet's pipeline.
augmentations = _base_.train_pipeline[2:4]
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=_base_.backend_args),
    dict(type='LoadPanopticMap', backend_args=_base_.backend_args), *augmentations,
    dict(type='PackPanopticInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=_base_.backend_args),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='LoadSegmentIds', backend_args=_base_.backend_args),
    dict(type='PackPanopticInputs')
]
train_dataloader = dict(dataset=dict(type='CocoPanopticMapDataset', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type='CocoPanopticMapDataset', pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='PanopticQualityMetric', backend_args=_base_.backend_args)
test_evaluator = val_evaluator
default_hooks = dict(visualization=dict(backend_args=_base_.backend_args))
