# The supernet of PSS-Net on MobileNetV2 (arXiv 2109.05432): eight widths, thirteen resolutions, 41,184 subnets.
_base_ = "../algorithms/pss.py"

model = dict(
    architecture=dict(
        resolutions=[128, 136, 144, 152, 160, 168, 176, 184, 192, 200, 208, 216, 224],
        backbone=dict(type="SlimmableMobileNetV2", width_range=(0.75, 1.0)),
        head=dict(in_channels=1280),
    ),
)

# The paper's targets: MFLOPs, and microseconds of the authors' tables, which are imported from their pickles by
# python tools/converters/pssnet.py latency-table THEIRS.pkl data/latency_tables/pssnet_mbv2_cpu.json --device cpu
paper_constraints = dict(
    flops=dict(metric="flops", first=70, last=300, step=10),
    latency_gpu=dict(metric="latency_gpu", first=100, last=270, step=10),
    latency_cpu=dict(metric="latency_cpu", first=12000, last=28000, step=1000),
)
paper_latency_gpu = dict(type="LatencyEstimator", table="data/latency_tables/pssnet_mbv2_gpu.json", device="cuda")
paper_latency_cpu = dict(type="LatencyEstimator", table="data/latency_tables/pssnet_mbv2_cpu.json", device="cpu")

# For another device: tools/latency/build_table.py, then --cfg-options model.estimators.latency_cpu.table=FILE.json
latency_cpu = dict(
    type="LatencyEstimator", table="{{fileDirname}}/../latency_tables/mobilenet_v2_cpu.json", device="cpu"
)
# Not shipped: the error on starting says how to measure it, and where it is expected.
latency_gpu = dict(
    type="LatencyEstimator", table="{{fileDirname}}/../latency_tables/mobilenet_v2_gpu.json", device="cuda"
)
