# PSS-MBV1-C with the paper's own targets, microseconds. They are of the authors' table, imported from their pickle:
# python tools/converters/pssnet.py latency-table THEIRS.pkl data/latency_tables/pssnet_mbv1_cpu.json --device cpu
_base_ = "./pss_mbv1_cpu.py"

model = dict(
    estimators=dict(
        latency_cpu=dict(type="LatencyEstimator", table="data/latency_tables/pssnet_mbv1_cpu.json", device="cpu"),
    ),
    constraints=[dict(metric="latency_cpu", first=10000, last=31000, step=1000)],
)
