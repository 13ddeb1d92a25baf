# Cream (NeurIPS 2020): prioritized paths teach those that are drawn. A model adds its backbone.
_base_ = ["../default_runtime.py", "../models/cream_classifier.py"]

model = dict(
    type="Cream",
    data_preprocessor=_base_.data_preprocessor_cfg,
    architecture=_base_.classifier_cfg,
    mutator=dict(type="SubnetMutator"),
    teacher="meta",
    slice_size=4,
)
model_wrapper_cfg = dict(type="mmrazor.PSSDistributedDataParallel")
default_hooks = dict(
    path_board=dict(type="PathBoardHook", pool_size=10, meta_start_epoch=20, update_iter=200, sampling="pre_prob"),
)
