# 120 epochs, total batch 1024, SGD with Nesterov momentum, LR from 1 linearly to 0 by iteration; LR 1e-4 of the layer
# that matches teachers.
optim_wrapper = dict(
    constructor="MergedGroupsConstructor",
    optimizer=dict(type="SGD", lr=1.0, momentum=0.9, nesterov=True, weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys=dict(matching=dict(lr_mult=1e-4))),
)
param_scheduler = dict(
    type="PolyLR", power=1.0, by_epoch=True, begin=0, end=120, eta_min=0.0, convert_to_iter_based=True
)
train_cfg = dict(by_epoch=True, max_epochs=120)
test_cfg = dict()
auto_scale_lr = dict(enable=False, base_batch_size=1024)
