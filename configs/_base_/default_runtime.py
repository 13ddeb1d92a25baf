custom_imports = dict(imports=["pss_razor.plugin"], allow_failed_imports=False)
default_scope = "mmrazor"

default_hooks = dict(
    # mmengine's, without waiting for the device in every iteration.
    runtime_info=dict(type="DeferredRuntimeInfoHook"),
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=100),
    param_scheduler=dict(type="ParamSchedulerHook"),
    # Two are kept, so that one is complete at any moment.
    checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    # A training that is resumed goes on as if it had not stopped.
    random_state=dict(type="RandomStateHook"),
)
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)

vis_backends = [dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")]
visualizer = dict(type="mmcls.ClsVisualizer", vis_backends=vis_backends)

log_level = "INFO"
load_from = None
resume = False
randomness = dict(seed=0, deterministic=False)
