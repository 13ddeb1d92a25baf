# ImageNet-1k as Cream's supernet sees it: 128 images for each of 8 GPUs; a smaller input size is made by the backbone.
_base_ = "./imagenet.py"

random_erasing = dict(
    type="mmcls.RandomErasing",
    erase_prob=0.2,
    mode="rand",
    min_area_ratio=0.02,
    max_area_ratio=1 / 3,
    # each pixel from a normal distribution; images are B, G, R
    fill_color=[103.53, 116.28, 123.675],
    fill_std=[57.375, 57.12, 58.395],
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmcls.RandomResizedCrop", scale=224, backend="pillow", interpolation="bicubic"),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="LookupColorJitter", brightness=0.4, contrast=0.4, saturation=0.4),
    random_erasing,
    dict(type="PackPlanes"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
