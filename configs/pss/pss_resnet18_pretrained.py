# PSS on torchvision's ResNet-18 from its trained weights: 20 pools. For 8 GPUs:
# tools/dist_train.sh configs/pss/pss_resnet18_pretrained.py 8
_base_ = "../_base_/settings/imagenet_pretrained.py"

model = dict(architecture=dict(network=dict(type="torchvision.resnet18", weights="IMAGENET1K_V1")))
