# PSS-MBV2 on scikit-learn's digits with pools for three metrics: FLOPs, parameters, and latency on the CPU of the
# shipped table.
_base_ = "./pss_mbv2_cpu_digits.py"

model = dict(
    constraints=[
        dict(metric="flops", num_targets=9),
        dict(metric="params", num_targets=5),
        dict(metric="latency_cpu", num_targets=9),
    ],
)
