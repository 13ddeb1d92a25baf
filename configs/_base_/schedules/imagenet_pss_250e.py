# 250 epochs, total batch 1024, SGD with Nesterov momentum, LR 0.3 with a cosine to 0 by iteration, no warm-up.
optim_wrapper = dict(
    constructor="MergedGroupsConstructor",
    optimizer=dict(type="SGD", lr=0.3, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=True),
    # Weight decay on ordinary convs and the linear weight only.
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, dwconv_decay_mult=0.0),
)
param_scheduler = dict(
    type="CosineAnnealingLR", by_epoch=True, begin=0, end=250, eta_min=0.0, convert_to_iter_based=True
)
train_cfg = dict(by_epoch=True, max_epochs=250, val_interval=10)
val_cfg = dict(type="PoolValLoop", top_k=1, calibration_batches=9)
test_cfg = dict(type="PoolTestLoop", top_k=5, calibration_batches=9)
auto_scale_lr = dict(enable=False, base_batch_size=1024)
custom_hooks = [
    dict(
        type="PrioritizedPoolSamplerHook",
        pool_size=50,
        score_momentum=0.9,
        p_explore=(1.0, 0.01),
        temperature=(1.0, 0.01),
    ),
]
