# PSS-MBV1-M: three metrics at once, with pools for each; a metric is drawn in proportion to its number of targets.
# No GPU table is shipped: the error on starting says how to measure one, and where it is expected.
_base_ = "./pss_mbv1_gpu.py"

model = dict(
    estimators=dict(
        latency_cpu=dict(
            type="LatencyEstimator",
            table="{{fileDirname}}/../_base_/latency_tables/mobilenet_v1_cpu.json",
            device="cpu",
        ),
    ),
    constraints=[
        dict(metric="flops", first=110, last=570, step=10),
        dict(metric="latency_gpu", num_targets=18),
        dict(metric="latency_cpu", num_targets=22),
    ],
)
