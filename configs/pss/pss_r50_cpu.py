# PSS-R50-C: 20 pools over the latencies on the CPU of the shipped table, one thread. The search space and the
# number of targets are ours.
# For another device: tools/latency/build_table.py, then --cfg-options model.estimators.latency_cpu.table=FILE.json
_base_ = "./pss_r50_flops.py"

model = dict(
    estimators=dict(latency_cpu=_base_.latency_cpu),
    constraints=[dict(metric="latency_cpu", num_targets=20)],
)
