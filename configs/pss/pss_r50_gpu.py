# PSS-R50-G: 20 pools over the latencies on your GPU. The search space and the number of targets are ours.
# No GPU table is shipped: the error on starting says how to measure one, and where it is expected.
_base_ = "./pss_r50_flops.py"

model = dict(
    estimators=dict(latency_gpu=_base_.latency_gpu),
    constraints=[dict(metric="latency_gpu", num_targets=20)],
)
