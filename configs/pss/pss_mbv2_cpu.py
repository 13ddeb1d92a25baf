# PSS-MBV2-C: 17 pools, as many as in the paper, over the latencies on the CPU of the shipped table, one thread.
# For another device: tools/latency/build_table.py, then --cfg-options model.estimators.latency_cpu.table=FILE.json
_base_ = "./pss_mbv2_flops.py"

model = dict(
    estimators=dict(latency_cpu=_base_.latency_cpu),
    constraints=[dict(metric="latency_cpu", num_targets=17)],
)
