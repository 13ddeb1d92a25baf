# CIFAR-100: sizes and parts are CIFAR-10's, in a hundred classes. mmcls downloads it into data/cifar100.
_base_ = "./cifar10.py"

image_statistics = dict(mean=[129.3, 124.1, 112.4], std=[68.2, 65.4, 70.4])
_cifar100 = dict(dataset=dict(type="mmcls.CIFAR100", data_prefix="data/cifar100"))
train_dataloader = _cifar100
selection_dataloader = _cifar100
val_dataloader = _cifar100
test_dataloader = _cifar100
