# PSS-MBV1-M with the paper's own targets; the tables are those of pss_mbv1_cpu_paper.py and pss_mbv1_gpu_paper.py.
_base_ = "./pss_mbv1_multi.py"

model = dict(
    estimators=dict(latency_gpu=_base_.paper_latency_gpu, latency_cpu=_base_.paper_latency_cpu),
    constraints=list(_base_.paper_constraints.values()),
)
