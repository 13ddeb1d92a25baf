# PSS on torchvision's EfficientNet-B0 from its trained weights: 20 pools. For 8 GPUs:
# tools/dist_train.sh configs/pss/pss_efficientnet_b0_pretrained.py 8
_base_ = "../_base_/settings/imagenet_pretrained.py"

# Without dropout and stochastic depth: they keep large networks from overfitting, and small subnets underfit. Depth is
# searched, which trains for missing blocks, too.
model = dict(
    architecture=dict(
        network=dict(
            type="torchvision.efficientnet_b0", weights="IMAGENET1K_V1", dropout=0.0, stochastic_depth_prob=0.0
        )
    )
)
