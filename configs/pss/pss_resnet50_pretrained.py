# PSS on torchvision's ResNet-50 from its trained weights: 20 pools. For 8 GPUs:
# tools/dist_train.sh configs/pss/pss_resnet50_pretrained.py 8
_base_ = "../_base_/settings/imagenet_pretrained.py"

# The weights of the plain recipe: those of IMAGENET1K_V2 were trained with mixed labels and long averaging, and are
# evaluated at another crop than the one that the pipeline here has.
model = dict(architecture=dict(network=dict(type="torchvision.resnet50", weights="IMAGENET1K_V1")))
