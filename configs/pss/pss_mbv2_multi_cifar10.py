# PSS-MBV2 on CIFAR-10 with pools for three metrics: FLOPs, parameters, and latency on the CPU of the shipped table.
_base_ = "./pss_mbv2_cpu_cifar10.py"

model = dict(
    constraints=[
        dict(metric="flops", num_targets=10),
        dict(metric="params", num_targets=5),
        dict(metric="latency_cpu", num_targets=11),
    ],
)
