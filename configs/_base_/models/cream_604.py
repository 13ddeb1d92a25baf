# The largest model that Cream's authors released, for training from scratch. Other architectures: model_selection=14,
# 43, 114, 287 or 481, or arch=[[0], stage 1, …, stage 5, [0]] with the index of an op for each block.
_base_ = "./cream_classifier.py"

model = dict(
    _base_.classifier_cfg,
    data_preprocessor=_base_.data_preprocessor_cfg,
    backbone=dict(type="mmrazor.CreamMobileNet", model_selection=604),
)
model["head"]["dropout_rate"] = 0.2
model_wrapper_cfg = dict(type="MMDistributedDataParallel")
