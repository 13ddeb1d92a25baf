# CIFAR-10, 32 x 32 pixels enlarged to 64 x 64: 45,000 images to train, 5,000 to choose subnets by, and 10,000 to test.
# mmcls downloads it into data/cifar10 where it is not there yet. Images are R, G, B.
image_statistics = dict(mean=[125.3, 123.0, 113.9], std=[51.6, 50.8, 51.3], to_rgb=False)
train_pipeline = [
    dict(type="mmcls.RandomCrop", crop_size=32, padding=4),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="mmcls.Resize", scale=64, interpolation="bilinear"),
    dict(type="mmcls.PackClsInputs"),
]
test_pipeline = [
    dict(type="mmcls.Resize", scale=64, interpolation="bilinear"),
    dict(type="mmcls.PackClsInputs"),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=False,
    worker_init_fn=dict(type="epoch_worker_seed"),
    dataset=dict(
        type="mmcls.CIFAR10", data_prefix="data/cifar10", test_mode=False, indices=45000, pipeline=train_pipeline
    ),
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    drop_last=True,
)
# Held out from training: what is chosen is chosen here, and measured on the test images.
selection_dataloader = dict(
    batch_size=500,
    num_workers=4,
    persistent_workers=False,
    dataset=dict(
        type="mmcls.CIFAR10", data_prefix="data/cifar10", test_mode=False, indices=-5000, pipeline=test_pipeline
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
)
val_dataloader = selection_dataloader
val_evaluator = dict(type="mmcls.Accuracy", topk=(1, 5))
test_dataloader = dict(
    batch_size=500,
    num_workers=4,
    persistent_workers=False,
    dataset=dict(type="mmcls.CIFAR10", data_prefix="data/cifar10", test_mode=True, pipeline=test_pipeline),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
)
test_evaluator = val_evaluator
