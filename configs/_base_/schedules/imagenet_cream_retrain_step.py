# 500 epochs, total batch 1024, RMSprop as TensorFlow has it, LR 0.064 with 3 epochs to warm up, times 0.973 every 2.4
# epochs, evaluation of averaged weights.
_base_ = "./imagenet_cream_retrain_cosine.py"

param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=True, begin=0, end=3, convert_to_iter_based=True),
    # The epochs that begin after 2.4, 4.8, …: 3, 5, 8, 10, 12, 15, …
    dict(type="MultiStepLR", by_epoch=True, begin=0, milestones=[-(-12 * k // 5) for k in range(1, 209)], gamma=0.973),
]
train_cfg = dict(max_epochs=500)
