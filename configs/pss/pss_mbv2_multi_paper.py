# PSS-MBV2-M with the paper's own targets; the tables are those of pss_mbv2_cpu_paper.py and pss_mbv2_gpu_paper.py.
_base_ = "./pss_mbv2_multi.py"

model = dict(
    estimators=dict(
        latency_gpu=dict(type="LatencyEstimator", table="data/latency_tables/pssnet_mbv2_gpu.json", device="cuda"),
        latency_cpu=dict(type="LatencyEstimator", table="data/latency_tables/pssnet_mbv2_cpu.json", device="cpu"),
    ),
    constraints=[
        dict(metric="flops", first=70, last=300, step=10),
        dict(metric="latency_gpu", first=100, last=270, step=10),
        dict(metric="latency_cpu", first=12000, last=28000, step=1000),
    ],
)
