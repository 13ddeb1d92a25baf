# ImageNet-1k for the training of a single architecture of Cream at 224 pixels.
_base_ = "./imagenet_cream_supernet.py"

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmcls.RandomResizedCrop", scale=224, backend="pillow", interpolation="bicubic"),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(
        type="RandAugment",
        _scope_="mmcls",  # that of its policies too
        policies="timm_increasing",
        num_policies=2,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[104, 116, 124], interpolation="bicubic"),
    ),
    _base_.random_erasing,
    dict(type="PackPlanes"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmcls.ResizeEdge", scale=256, edge="short", backend="pillow", interpolation="bicubic"),
    dict(type="mmcls.CenterCrop", crop_size=224),
    dict(type="PackPlanes"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
