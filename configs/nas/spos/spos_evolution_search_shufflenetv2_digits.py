# Step 2 of SPOS on scikit-learn's digits: --cfg-options load_from=STEP1
_base_ = "./spos_supernet_shufflenetv2_digits.py"

model = dict(norm_training=True)

train_cfg = dict(
    _delete_=True,
    type="ConstrainedSearchLoop",
    dataloader=_base_.selection_dataloader,
    evaluator=_base_.test_evaluator,
    max_epochs=5,
    num_candidates=20,
    top_k=5,
    num_mutation=10,
    num_crossover=10,
    mutate_prob=0.1,
    estimator_cfg=dict(type="OneShotResourceEstimator", input_size=32),
    constraints_range=dict(flops=(0.0, 2.1)),
    score_key="accuracy/top1",
    resume_from=None,
)
