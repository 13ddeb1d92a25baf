# ImageNet-1k as folders: data/imagenet/{train,val}/<class>/<image>.JPEG. Batch 128 for each of 8 GPUs.

# Rows are B, G, R: images are in that order until the data preprocessor.
eigenvectors = [[-0.5836, -0.6948, 0.4203], [-0.5808, -0.0045, -0.8140], [-0.5675, 0.7192, 0.4009]]

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmcls.RandomResizedCrop", scale=224, crop_ratio_range=(0.25, 1.0)),
    dict(type="LookupColorJitter", brightness=0.4, contrast=0.4, saturation=0.4),
    dict(type="ClippedLighting", eigval=[55.4625, 4.7940, 1.1475], eigvec=eigenvectors, alphastd=0.1),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="PackPlanes"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmcls.ResizeEdge", scale=256, edge="short"),
    dict(type="mmcls.CenterCrop", crop_size=224),
    dict(type="PackPlanes"),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    # Workers are started anew every epoch, with seeds of that epoch: a resumed run continues exactly.
    persistent_workers=False,
    worker_init_fn=dict(type="epoch_worker_seed"),
    dataset=dict(type="ImageFolder", data_root="data/imagenet", data_prefix="train", pipeline=train_pipeline),
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    drop_last=True,
    pin_memory=True,
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=False,
    dataset=dict(type="ImageFolder", data_root="data/imagenet", data_prefix="val", pipeline=test_pipeline),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    pin_memory=True,
)
val_evaluator = dict(type="mmcls.Accuracy", topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
