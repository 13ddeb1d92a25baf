# A network of torchvision's that starts from its trained weights, channels in the order of their importance; a config
# says which. Its widths are from half to all, depth too, resolutions as MobileNetV1's in the paper, every 16 pixels.
_base_ = "../algorithms/pss.py"

model = dict(
    architecture=dict(
        _delete_=True,
        type="ConvertedImageClassifier",
        resolutions=[128, 144, 160, 176, 192, 208, 224],
        num_classes=1000,
        sort="l1",
    ),
    constraints=[dict(metric="flops", num_targets=20)],
)
