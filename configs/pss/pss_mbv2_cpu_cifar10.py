# PSS-MBV2-C on CIFAR-10, for the CPU of the shipped table.
_base_ = "./pss_mbv2_flops_cifar10.py"

model = dict(
    estimators=dict(
        latency_cpu=dict(
            _base_.latency_cpu, table="{{fileDirname}}/../_base_/latency_tables/mobilenet_v2_64px_cpu.json"
        ),
    ),
    constraints=[dict(metric="latency_cpu", num_targets=11)],
)
