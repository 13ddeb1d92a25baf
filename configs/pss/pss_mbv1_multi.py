# PSS-MBV1-M: three metrics at once, with pools for each; a metric is drawn in proportion to its number of targets.
# No GPU table is shipped: the error on starting says how to measure one, and where it is expected.
_base_ = "./pss_mbv1_gpu.py"

model = dict(
    estimators=dict(latency_cpu=_base_.latency_cpu),
    constraints=[
        _base_.paper_constraints.flops,
        dict(metric="latency_gpu", num_targets=18),
        dict(metric="latency_cpu", num_targets=22),
    ],
)
