# PSS on torchvision's MobileNetV3-Large from its trained weights: 20 pools. For 8 GPUs:
# tools/dist_train.sh configs/pss/pss_mobilenetv3_large_pretrained.py 8
_base_ = "../_base_/settings/imagenet_pretrained.py"

# Without its dropout: it keeps large networks from overfitting, and small subnets underfit.
model = dict(
    architecture=dict(network=dict(type="torchvision.mobilenet_v3_large", weights="IMAGENET1K_V1", dropout=0.0))
)
