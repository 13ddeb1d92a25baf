# The supernet of PSS-Net on MobileNetV1 (arXiv 2109.05432): fourteen widths, thirteen resolutions, 4e15 subnets.
_base_ = "../algorithms/pss.py"

model = dict(
    architecture=dict(
        resolutions=[128, 136, 144, 152, 160, 168, 176, 184, 192, 200, 208, 216, 224],
        backbone=dict(type="SlimmableMobileNetV1", width_range=(0.75, 1.0)),
        # The output width is searched too; this head follows it.
        head=dict(type="SlicedLinearClsHead", in_channels=1024),
    ),
)

# The paper's targets: MFLOPs, and microseconds of the authors' tables, which are imported from their pickles by
# python tools/converters/pssnet.py latency-table THEIRS.pkl data/latency_tables/pssnet_mbv1_cpu.json --device cpu
paper_constraints = dict(
    flops=dict(metric="flops", first=110, last=570, step=10),
    latency_gpu=dict(metric="latency_gpu", first=70, last=240, step=10),
    latency_cpu=dict(metric="latency_cpu", first=10000, last=31000, step=1000),
)
paper_latency_gpu = dict(type="LatencyEstimator", table="data/latency_tables/pssnet_mbv1_gpu.json", device="cuda")
paper_latency_cpu = dict(type="LatencyEstimator", table="data/latency_tables/pssnet_mbv1_cpu.json", device="cpu")

# For another device: tools/latency/build_table.py, then --cfg-options model.estimators.latency_cpu.table=FILE.json
latency_cpu = dict(
    type="LatencyEstimator", table="{{fileDirname}}/../latency_tables/mobilenet_v1_cpu.json", device="cpu"
)
# Not shipped: the error on starting says how to measure it, and where it is expected.
latency_gpu = dict(
    type="LatencyEstimator", table="{{fileDirname}}/../latency_tables/mobilenet_v1_gpu.json", device="cuda"
)
