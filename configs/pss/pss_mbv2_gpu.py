# PSS-MBV2-G: 18 pools, as many as in the paper, over the latencies on your GPU.
# No GPU table is shipped: the error on starting says how to measure one, and where it is expected.
_base_ = [
    "../_base_/models/pss_mobilenet_v2.py",
    "../_base_/datasets/imagenet.py",
    "../_base_/schedules/imagenet_pss_250e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    estimators=dict(
        latency_gpu=dict(
            type="LatencyEstimator",
            table="{{fileDirname}}/../_base_/latency_tables/mobilenet_v2_gpu.json",
            device="cuda",
        ),
    ),
    constraints=[dict(metric="latency_gpu", num_targets=18)],
)
