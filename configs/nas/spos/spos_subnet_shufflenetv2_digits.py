# Steps 3 and 4 of SPOS on scikit-learn's digits: --cfg-options model.init_cfg.checkpoint=STEP2 (to test: STEP3)
_base_ = "./spos_supernet_shufflenetv2_digits.py"

model = dict(_base_.subnet_cfg, _delete_=True, cfg=_base_.supernet)
model_wrapper_cfg = dict(find_unused_parameters=False)
param_scheduler = dict(end=20)
train_cfg = dict(max_epochs=20)
