# Step 2 of SPOS on scikit-learn's digits: --cfg-options load_from=STEP1
_base_ = "./spos_supernet_shufflenetv2_digits.py"

model = dict(norm_training=True)

train_cfg = dict(
    _base_.search_cfg,
    _delete_=True,
    dataloader=_base_.selection_dataloader,
    evaluator=_base_.test_evaluator,
    max_epochs=5,
    num_candidates=20,
    top_k=5,
    num_mutation=10,
    num_crossover=10,
    constraints_range=dict(flops=(0.0, 2.1)),
)
train_cfg["estimator_cfg"]["input_size"] = 32
