# Cream on scikit-learn's digits, step 2: the path that the search found, from scratch.
_base_ = [
    "../../_base_/models/cream_604.py",
    "../../_base_/datasets/digits.py",
    "../../_base_/schedules/imagenet_cream_retrain_cosine.py",
]

classifier = _base_.model
classifier.data_preprocessor.update(_base_.image_statistics)
classifier.head.num_classes = 10
classifier.backbone = dict(type="mmrazor.CreamMobileNet", flops_range=(0, 10))
model = dict(
    _delete_=True,
    type="sub_model",
    cfg=classifier,
    fix_subnet="work_dirs/cream_digits/search/best_fix_subnet.yaml",
)

optim_wrapper = dict(optimizer=dict(lr=0.01))
_base_.param_scheduler[0].end = 1
_base_.param_scheduler[1].begin = 1
_base_.param_scheduler[1].end = 12
train_cfg = dict(max_epochs=12, val_interval=4)
auto_scale_lr = dict(base_batch_size=64)
# 18 iterations an epoch: an average over fewer of them.
default_hooks = dict(logger=dict(interval=9), ema=dict(momentum=0.05))
