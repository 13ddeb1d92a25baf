# Cream, step 2: train the path that a search found. Give it the flops_range of the search, from which depth and input
# size follow: --cfg-options model.fix_subnet=W/best_fix_subnet.yaml "model.cfg.backbone.flops_range=(0,287)"
_base_ = "./cream_604_8xb128_in1k.py"

classifier = _base_.model
classifier.backbone = dict(type="mmrazor.CreamMobileNet", flops_range=(0, 287))
model = dict(
    _delete_=True,
    type="sub_model",
    cfg=classifier,
    fix_subnet="work_dirs/cream_supernet_8xb128_in1k/best_fix_subnet.yaml",
)
