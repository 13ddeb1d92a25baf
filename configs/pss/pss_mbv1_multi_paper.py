# PSS-MBV1-M with the paper's own targets; the tables are those of pss_mbv1_cpu_paper.py and pss_mbv1_gpu_paper.py.
_base_ = "./pss_mbv1_multi.py"

model = dict(
    estimators=dict(
        latency_gpu=dict(type="LatencyEstimator", table="data/latency_tables/pssnet_mbv1_gpu.json", device="cuda"),
        latency_cpu=dict(type="LatencyEstimator", table="data/latency_tables/pssnet_mbv1_cpu.json", device="cpu"),
    ),
    constraints=[
        dict(metric="flops", first=110, last=570, step=10),
        dict(metric="latency_gpu", first=70, last=240, step=10),
        dict(metric="latency_cpu", first=10000, last=31000, step=1000),
    ],
)
