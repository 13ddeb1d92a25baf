# Images of ImageNet, which come in the order B, G, R: their mean and standard deviation in R, G, B.
data_preprocessor_cfg = dict(
    type="mmrazor.NonBlockingClsDataPreprocessor",
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
