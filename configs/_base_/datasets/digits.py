# scikit-learn's 1,797 handwritten digits, 8 x 8 pixels enlarged to 32 x 32: 1,197 to train, 240 to choose subnets by,
# and 360 to test.
image_statistics = dict(mean=[77.8, 77.8, 77.8], std=[95.9, 95.9, 95.9], to_rgb=False)
train_pipeline = [
    dict(type="mmcls.Resize", scale=32, interpolation="bilinear"),
    dict(type="mmcls.RandomCrop", crop_size=32, padding=3, padding_mode="edge"),
    dict(type="mmcls.PackClsInputs"),
]
test_pipeline = [
    dict(type="mmcls.Resize", scale=32, interpolation="bilinear"),
    dict(type="mmcls.PackClsInputs"),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(type="Digits", split="train", indices=1197, pipeline=train_pipeline),
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    drop_last=True,
)
# Held out from training: what is chosen is chosen here, and measured on the test images.
selection_dataloader = dict(
    batch_size=240,
    num_workers=0,
    dataset=dict(type="Digits", split="train", indices=-240, pipeline=test_pipeline),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
)
val_dataloader = selection_dataloader
val_evaluator = dict(type="mmcls.Accuracy", topk=(1, 5))
test_dataloader = dict(
    batch_size=360,
    num_workers=0,
    dataset=dict(type="Digits", split="test", pipeline=test_pipeline),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
)
test_evaluator = val_evaluator
