# PSS-MBV1-G: 18 pools, as many as in the paper, over the latencies on your GPU.
# No GPU table is shipped: the error on starting says how to measure one, and where it is expected.
_base_ = "./pss_mbv1_flops.py"

model = dict(
    estimators=dict(latency_gpu=_base_.latency_gpu),
    constraints=[dict(metric="latency_gpu", num_targets=18)],
)
