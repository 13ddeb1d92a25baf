# Prioritized subnet sampling (arXiv 2109.05432), with the paper's settings: what every supernet that is trained by it
# has. A model adds its backbone, a config its constraints.
_base_ = ["../default_runtime.py", "../data_preprocessor.py"]

model = dict(
    type="PSS",
    channels_last=True,
    data_preprocessor=_base_.data_preprocessor_cfg,
    architecture=dict(
        type="SlimmableImageClassifier",
        neck=dict(type="mmcls.GlobalAveragePooling"),
        head=dict(type="mmcls.LinearClsHead", num_classes=1000, loss=dict(type="mmcls.CrossEntropyLoss")),
    ),
    mutator=dict(type="SubnetMutator"),
    # Resources that are known of every subnet; `constraints` says which of them have targets.
    estimators=dict(flops=dict(type="FlopsEstimator"), params=dict(type="ParamsEstimator")),
)
# Gradients are exchanged once a step; a single process ignores this.
# With its scope: mmengine looks for wrappers in its own registry only.
model_wrapper_cfg = dict(type="mmrazor.PSSDistributedDataParallel")
default_hooks = dict(
    subnet_sampler=dict(
        type="PrioritizedPoolSamplerHook",
        pool_size=50,
        score_momentum=0.9,
        p_explore=(1.0, 0.01),
        temperature=(1.0, 0.01),
    ),
    # Images and multiply-accumulates, in logs, checkpoints and results.
    training_cost=dict(type="TrainingCostHook"),
)
val_cfg = dict(type="PoolValLoop", top_k=1, calibration_batches=9)
test_cfg = dict(type="PoolTestLoop", top_k=5, calibration_batches=9)
