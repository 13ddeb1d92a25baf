# PSS-MBV2-F whose subnets are chosen on 10,009 images that are held out from training, and measured on the validation
# images. The paper chooses and measures on the same: pss_mbv2_flops.py.
_base_ = [
    "../_base_/models/pss_mobilenet_v2.py",
    "../_base_/datasets/imagenet_held_out.py",
    "../_base_/schedules/imagenet_pss_250e.py",
]

model = dict(constraints=[_base_.paper_constraints.flops])
test_cfg = dict(selection_dataloader=_base_.selection_dataloader)
