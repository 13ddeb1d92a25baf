# scikit-learn's 1,797 handwritten digits, 1,437 to train and 360 to test, 8 x 8 pixels enlarged to 32 x 32.
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
    dataset=dict(type="Digits", split="train", pipeline=train_pipeline),
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    drop_last=True,
)
val_dataloader = dict(
    batch_size=360,
    num_workers=0,
    dataset=dict(type="Digits", split="test", pipeline=test_pipeline),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
)
val_evaluator = dict(type="mmcls.Accuracy", topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
