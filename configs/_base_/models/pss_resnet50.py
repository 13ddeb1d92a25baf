# ResNet-50 in the space of PSS-Net's kind: stem and four stage widths, thirteen resolutions, 1.3e7 subnets.
_base_ = ["../algorithms/pss.py", "./resnet50.py"]

model = dict(
    architecture=dict(
        resolutions=[128, 136, 144, 152, 160, 168, 176, 184, 192, 200, 208, 216, 224],
        **_base_.resnet50,
    ),
)
# 34 targets; the paper trains it, its authors released neither code nor weights.
flops_constraint = dict(metric="flops", first=800, last=4100, step=100)

# For another device: tools/latency/build_table.py, then --cfg-options model.estimators.latency_cpu.table=FILE.json
latency_cpu = dict(type="LatencyEstimator", table="{{fileDirname}}/../latency_tables/resnet50_cpu.json", device="cpu")
# Not shipped: the error on starting says how to measure it, and where it is expected.
latency_gpu = dict(type="LatencyEstimator", table="{{fileDirname}}/../latency_tables/resnet50_gpu.json", device="cuda")
