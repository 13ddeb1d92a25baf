# 500 epochs and 10 to cool down, total batch 1024, RMSprop as TensorFlow has it, LR 0.064 with 3 epochs to warm up and
# a cosine to 1e-5, evaluation of averaged weights.
_base_ = "../default_runtime.py"

optim_wrapper = dict(
    constructor="MergedGroupsConstructor",
    optimizer=dict(type="RMSpropTF", lr=0.064, alpha=0.9, momentum=0.9, eps=1e-3, weight_decay=1e-5),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=True, begin=0, end=3, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", by_epoch=True, begin=3, end=500, eta_min=1e-5, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=510, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(enable=False, base_batch_size=1024)
default_hooks = dict(ema=dict(type="EMAHook", momentum=1e-4, update_buffers=True))
