# Steps 3 and 4 of SPOS: retrain the subnet that was found and test it. STEP2 is the subnet_best.pth of the search,
# STEP3 a checkpoint of the retraining; which subnet it is, is read from them:
# tools/dist_train.sh configs/nas/spos/spos_subnet_shufflenetv2_8xb128_in1k.py 4 --work-dir W \
#     --cfg-options model.init_cfg.checkpoint=STEP2
# tools/dist_test.sh configs/nas/spos/spos_subnet_shufflenetv2_8xb128_in1k.py none 1 --work-dir W \
#     --cfg-options model.init_cfg.checkpoint=STEP3
# From new weights: the subnet that MMRazor searched, unless model.fix_subnet names another, such as a search's
# best_fix_subnet.yaml, or that of the paper's authors, shufflenetv2_330m_paper.yaml.
_base_ = [
    "../../_base_/models/spos_shufflenetv2.py",
    "../../_base_/settings/imagenet_spos.py",
]

model = dict(
    _base_.subnet_cfg,
    _delete_=True,
    cfg=_base_.supernet,
    fix_subnet="{{ fileDirname }}/shufflenetv2_330m_mmrazor.yaml",
)
model_wrapper_cfg = dict(find_unused_parameters=False)
