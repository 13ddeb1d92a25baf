# PSS on ResNet-50: 34 pools from 800 to 4100 MFLOPs. The paper trains it, its authors released neither code nor
# weights; the search space is ours. For 8 GPUs: tools/dist_train.sh configs/pss/pss_r50_flops.py 8
_base_ = [
    "../_base_/models/pss_resnet50.py",
    "../_base_/datasets/imagenet.py",
    "../_base_/schedules/imagenet_pss_250e.py",
]

model = dict(constraints=[_base_.flops_constraint])
