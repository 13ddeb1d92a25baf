# PSS-R50-C: 20 pools over the latencies on the CPU of the shipped table, one thread. The search space and the
# number of targets are ours.
# For another device: tools/latency/build_table.py, then --cfg-options model.estimators.latency_cpu.table=FILE.json
_base_ = [
    "../_base_/models/pss_resnet50.py",
    "../_base_/datasets/imagenet.py",
    "../_base_/schedules/imagenet_pss_250e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    estimators=dict(
        latency_cpu=dict(
            type="LatencyEstimator", table="{{fileDirname}}/../_base_/latency_tables/resnet50_cpu.json", device="cpu"
        ),
    ),
    constraints=[dict(metric="latency_cpu", num_targets=20)],
)
