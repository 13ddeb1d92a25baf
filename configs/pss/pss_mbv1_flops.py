# PSS-MBV1-F of the paper: 47 pools from 110 to 570 MFLOPs. For 8 GPUs:
# tools/dist_train.sh configs/pss/pss_mbv1_flops.py 8
_base_ = [
    "../_base_/models/pss_mobilenet_v1.py",
    "../_base_/datasets/imagenet.py",
    "../_base_/schedules/imagenet_pss_250e.py",
]

model = dict(constraints=[_base_.paper_constraints.flops])
