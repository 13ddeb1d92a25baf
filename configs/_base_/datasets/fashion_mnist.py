# Fashion-MNIST, 28 x 28 pixels padded to 32 x 32: 50,000 images to train, 4,000 to score pools by during training,
# 4,000 to choose subnets by, and 10,000 to test. It downloads into data/fashion_mnist, or takes the files of
# torchvision or Debian; see the class. An epoch is 3,200 images, 50 steps.
data_root = "data/fashion_mnist"
image_statistics = dict(mean=[72.9, 72.9, 72.9], std=[90.0, 90.0, 90.0], to_rgb=False)
train_pipeline = [
    dict(type="mmcls.RandomCrop", crop_size=32, padding=3),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="mmcls.PackClsInputs"),
]
test_pipeline = [dict(type="mmcls.PackClsInputs")]
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(
        type="FashionMNIST",
        data_prefix=data_root,
        test_mode=False,
        span=(0, 50000),
        padding=2,
        pipeline=train_pipeline,
    ),
    sampler=dict(type="PartialEpochSampler", num_samples=3200, shuffle=True),
    collate_fn=dict(type="default_collate"),
    drop_last=True,
)
# Held out from training: what is chosen is chosen here, and measured on the test images.
selection_dataloader = dict(
    batch_size=500,
    num_workers=0,
    dataset=dict(
        type="FashionMNIST",
        data_prefix=data_root,
        test_mode=False,
        span=(54000, 58000),
        padding=2,
        pipeline=test_pipeline,
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
)
# Held out, too, for scores of pool members while they are trained.
scoring_dataloader = dict(
    selection_dataloader,
    dataset=dict(selection_dataloader["dataset"], span=(50000, 54000)),
)
val_dataloader = selection_dataloader
val_evaluator = dict(type="mmcls.Accuracy", topk=(1, 5))
test_dataloader = dict(
    batch_size=500,
    num_workers=0,
    dataset=dict(type="FashionMNIST", data_prefix=data_root, test_mode=True, padding=2, pipeline=test_pipeline),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
)
test_evaluator = val_evaluator
