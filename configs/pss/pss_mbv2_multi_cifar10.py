# PSS-MBV2 on CIFAR-10 with pools for three metrics: FLOPs, parameters, and latency on the CPU of the shipped table.
_base_ = "./pss_mbv2_flops_cifar10.py"

model = dict(
    estimators=dict(
        latency_cpu=dict(
            type="LatencyEstimator",
            table="{{fileDirname}}/../_base_/latency_tables/mobilenet_v2_64px_cpu.json",
            device="cpu",
        ),
    ),
    constraints=[
        dict(metric="flops", num_targets=10),
        dict(metric="params", num_targets=5),
        dict(metric="latency_cpu", num_targets=11),
    ],
)
