# PSS-MBV2-C with the paper's own targets, microseconds. They are of the authors' table, imported from their pickle:
# python tools/converters/pssnet.py latency-table THEIRS.pkl data/latency_tables/pssnet_mbv2_cpu.json --device cpu
_base_ = "./pss_mbv2_cpu.py"

model = dict(
    estimators=dict(latency_cpu=_base_.paper_latency_cpu),
    constraints=[_base_.paper_constraints.latency_cpu],
)
