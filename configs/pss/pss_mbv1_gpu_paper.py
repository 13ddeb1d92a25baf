# PSS-MBV1-G with the paper's own targets, microseconds. They are of the authors' table, imported from their pickle:
# python tools/converters/pssnet.py latency-table THEIRS.pkl data/latency_tables/pssnet_mbv1_gpu.json --device cuda
_base_ = "./pss_mbv1_gpu.py"

model = dict(
    estimators=dict(latency_gpu=_base_.paper_latency_gpu),
    constraints=[_base_.paper_constraints.latency_gpu],
)
