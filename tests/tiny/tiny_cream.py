# Cream on digits, small enough for tests: one block a stage at 32 pixels, six iterations an epoch.
_base_ = "../../configs/nas/cream/cream_supernet_digits.py"

model = dict(
    architecture=dict(backbone=dict(flops_range=None, depths=(1, 1, 1, 1, 1), input_size=32)),
    slice_size=3,
)
train_dataloader = dict(batch_size=16, dataset=dict(indices=96))
test_dataloader = dict(batch_size=24, dataset=dict(indices=48))
train_cfg = dict(max_epochs=3)
param_scheduler = dict(end=3)
default_hooks = dict(
    logger=dict(interval=3),
    checkpoint=dict(max_keep_ckpts=-1),
    path_board=dict(pool_size=3, meta_start_epoch=1, update_iter=4, sampling="teacher"),
)
visualizer = dict(vis_backends=[dict(type="LocalVisBackend")])
