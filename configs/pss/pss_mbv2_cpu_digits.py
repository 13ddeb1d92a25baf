# PSS-MBV2-C on scikit-learn's digits, for the CPU of the shipped table.
_base_ = "./pss_mbv2_flops_digits.py"

model = dict(
    estimators=dict(
        latency_cpu=dict(
            _base_.latency_cpu, table="{{fileDirname}}/../_base_/latency_tables/mobilenet_v2_32px_cpu.json"
        ),
    ),
    constraints=[dict(metric="latency_cpu", num_targets=9)],
)
