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
auto_scale_lr = dict(enable=False, base_batch_size=1024)
