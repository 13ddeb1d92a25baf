# 30 epochs from trained weights, total batch 1024, SGD with Nesterov momentum; not run on ImageNet, reasoned:
# - Learning rate 0.06, a fifth of the 0.3 that the paper trains with from scratch. The network is at an optimum that a
#   large step leaves, while its subnets were never trained. On Fashion-MNIST a fifth did well (docs/pretrained.md).
# - A linear warm-up of one epoch: the first gradients of subnets that were never trained are large, and all add up in
#   the weights that the largest shares with them.
# - Then a cosine to 0 by iteration, as from scratch.
_base_ = "imagenet_pss_250e.py"

optim_wrapper = dict(optimizer=dict(lr=0.06))
param_scheduler = [
    dict(type="LinearLR", by_epoch=True, begin=0, end=1, start_factor=0.1, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", by_epoch=True, begin=1, end=30, eta_min=0.0, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=30, val_interval=5)
