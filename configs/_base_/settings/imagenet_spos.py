# MMRazor's settings of SPOS: 300 epochs, total batch 1024, SGD, LR 0.5 falling linearly to 0 by iteration. The images
# are those of ../datasets/imagenet.py, folders without a list of files.
_base_ = "mmrazor::_base_/settings/imagenet_bs1024_spos.py"

train_dataloader = dict(
    persistent_workers=False,
    worker_init_fn=dict(type="epoch_worker_seed"),
    dataset=dict(
        _delete_=True,
        type="ImageFolder",
        data_root="data/imagenet",
        data_prefix="train",
        pipeline=_base_.train_pipeline,
    ),
    collate_fn=dict(type="default_collate"),
    drop_last=True,
    pin_memory=True,
)
val_dataloader = dict(
    persistent_workers=False,
    dataset=dict(
        _delete_=True, type="ImageFolder", data_root="data/imagenet", data_prefix="val", pipeline=_base_.test_pipeline
    ),
    collate_fn=dict(type="default_collate"),
    pin_memory=True,
)
test_dataloader = val_dataloader
optim_wrapper = dict(constructor="MergedGroupsConstructor")
train_cfg = dict(val_interval=10)
auto_scale_lr = dict(enable=False, base_batch_size=1024)
