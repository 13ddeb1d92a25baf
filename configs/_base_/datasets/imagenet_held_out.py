# ImageNet-1k with images of its own to choose subnets by: each 128th training image, 10,009 in all, is held out from
# training. The paper has none, and chooses on the validation images that it reports; that is imagenet.py.
_base_ = "./imagenet.py"

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="mmcls.KFoldDataset",
        num_splits=128,
        seed=0,
        test_mode=False,
        dataset=_base_.train_dataloader.dataset,
    ),
)
selection_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=False,
    dataset=dict(
        type="mmcls.KFoldDataset",
        num_splits=128,
        seed=0,
        test_mode=True,
        dataset=dict(type="ImageFolder", data_root="data/imagenet", data_prefix="train", pipeline=_base_.test_pipeline),
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    pin_memory=True,
)
val_dataloader = dict(_delete_=True, **selection_dataloader)
