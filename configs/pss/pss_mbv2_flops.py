# PSS-MBV2-F of the paper: 24 pools from 70 to 300 MFLOPs. For 8 GPUs:
# tools/dist_train.sh configs/pss/pss_mbv2_flops.py 8
_base_ = [
    "../_base_/models/pss_mobilenet_v2.py",
    "../_base_/datasets/imagenet.py",
    "../_base_/schedules/imagenet_pss_250e.py",
]

model = dict(constraints=[_base_.paper_constraints.flops])
