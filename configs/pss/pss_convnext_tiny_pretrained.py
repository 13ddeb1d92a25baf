# PSS on torchvision's ConvNeXt-Tiny from its trained weights: 20 pools. For 8 GPUs:
# tools/dist_train.sh configs/pss/pss_convnext_tiny_pretrained.py 8
_base_ = "../_base_/settings/imagenet_pretrained.py"

# Without stochastic depth: it keeps large networks from overfitting, and small subnets underfit.
model = dict(
    architecture=dict(
        network=dict(type="torchvision.convnext_tiny", weights="IMAGENET1K_V1", stochastic_depth_prob=0.0)
    )
)
# AdamW, as the network was trained: 4e-3 at a total batch of 4096 is 1e-3 at 1024, and a fifth of that as for SGD.
# Norms, biases and layer scales have no weight decay.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=2e-4, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    paramwise_cfg=dict(custom_keys={"layer_scale": dict(decay_mult=0.0)}),
)
