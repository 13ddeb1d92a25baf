# PSS-R50-M: three metrics at once, with pools for each; a metric is drawn in proportion to its number of targets.
# The search space and the number of targets are ours.
# No GPU table is shipped: the error on starting says how to measure one, and where it is expected.
_base_ = "./pss_r50_gpu.py"

model = dict(
    estimators=dict(latency_cpu=_base_.latency_cpu),
    constraints=[
        _base_.flops_constraint,
        dict(metric="latency_gpu", num_targets=20),
        dict(metric="latency_cpu", num_targets=20),
    ],
)
