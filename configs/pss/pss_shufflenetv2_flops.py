# Prioritized pools over the one-shot ops of ShuffleNetV2: 14 pools from 270 to 400 MFLOPs. For 8 GPUs:
# tools/dist_train.sh configs/pss/pss_shufflenetv2_flops.py 8
_base_ = [
    "../_base_/models/pss_shufflenetv2.py",
    "../_base_/datasets/imagenet.py",
    "../_base_/schedules/imagenet_pss_250e.py",
]

model = dict(constraints=[dict(metric="flops", first=270, last=400, step=10)])
# torch's fused SGD fails where a parameter gets its first gradient later than others.
optim_wrapper = dict(optimizer=dict(fused=False))
