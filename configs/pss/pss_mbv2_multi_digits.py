# PSS-MBV2 on scikit-learn's digits with pools for three metrics: FLOPs, parameters, and latency on the CPU of the
# shipped table.
_base_ = "./pss_mbv2_flops_digits.py"

model = dict(
    estimators=dict(
        latency_cpu=dict(
            type="LatencyEstimator",
            table="{{fileDirname}}/../_base_/latency_tables/mobilenet_v2_32px_cpu.json",
            device="cpu",
        ),
    ),
    constraints=[
        dict(metric="flops", num_targets=9),
        dict(metric="params", num_targets=5),
        dict(metric="latency_cpu", num_targets=9),
    ],
)
