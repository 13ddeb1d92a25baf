# PSS-R50-M: three metrics at once, with pools for each; a metric is drawn in proportion to its number of targets.
# The search space and the number of targets are ours.
# No GPU table is shipped: the error on starting says how to measure one, and where it is expected.
_base_ = "./pss_r50_gpu.py"

model = dict(
    estimators=dict(
        latency_cpu=dict(
            type="LatencyEstimator", table="{{fileDirname}}/../_base_/latency_tables/resnet50_cpu.json", device="cpu"
        ),
    ),
    constraints=[
        dict(metric="flops", first=800, last=4100, step=100),
        dict(metric="latency_gpu", num_targets=20),
        dict(metric="latency_cpu", num_targets=20),
    ],
)
