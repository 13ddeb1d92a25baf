# Any architecture of Cream's space, a random one for instance: the index of an op for each block, 0 = k3e4, 1 = k3e6,
# 2 = k5e4, 3 = k5e6, 4 = k7e4, 5 = k7e6. From the command line:
# --cfg-options "model.backbone.arch=[[0],[3],[3,3],[3,1,3],[3,3,3,3],[3,3,3],[0]]"
_base_ = "./cream_604_8xb128_in1k.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmrazor.CreamMobileNet",
        arch=[[0], [3], [3, 3], [3, 1, 3], [3, 3, 3, 3], [3, 3, 3], [0]],
        input_size=224,
    ),
)
