# PSS-MBV1-C: 22 pools, as many as in the paper, over the latencies on the CPU of the shipped table, one thread.
# For another device: tools/latency/build_table.py, then --cfg-options model.estimators.latency_cpu.table=FILE.json
_base_ = [
    "../_base_/models/pss_mobilenet_v1.py",
    "../_base_/datasets/imagenet.py",
    "../_base_/schedules/imagenet_pss_250e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    estimators=dict(
        latency_cpu=dict(
            type="LatencyEstimator",
            table="{{fileDirname}}/../_base_/latency_tables/mobilenet_v1_cpu.json",
            device="cpu",
        ),
    ),
    constraints=[dict(metric="latency_cpu", num_targets=22)],
)
