# The digits config of SPOS' search, small enough for tests: five places of four ops, six candidates an epoch.
_base_ = "../../configs/nas/spos/spos_evolution_search_shufflenetv2_digits.py"

_op = _base_.model.architecture.backbone.arch_setting[0][2]
_backbone = dict(arch_setting=[[64, 2, _op], [96, 3, _op]], out_indices=(2,), widen_factor=0.25)
supernet = dict(backbone=_backbone)
model = dict(architecture=dict(backbone=_backbone))
train_dataloader = dict(batch_size=16, dataset=dict(indices=96))
val_dataloader = None
test_dataloader = dict(batch_size=24, dataset=dict(indices=48))
train_cfg = dict(
    dataloader=dict(batch_size=24, dataset=dict(indices=48)),
    max_epochs=4,
    num_candidates=6,
    top_k=3,
    num_mutation=2,
    num_crossover=2,
    constraints_range=dict(_delete_=True, flops=(0.0, 0.75), params=(0.041, 0.0415)),
)
visualizer = dict(vis_backends=[dict(type="LocalVisBackend")])
