# Step 2 of SPOS on scikit-learn's digits with a predictor: 60 subnets are evaluated, a Gaussian process fitted to them
# scores the candidates, and its best ten are evaluated in the end. --cfg-options load_from=STEP1
# Needs pydacefit: pip install 'pss_razor[predictor]'
_base_ = "./spos_evolution_search_shufflenetv2_digits.py"

train_cfg = dict(
    max_epochs=10,
    num_candidates=100,
    top_k=10,
    num_mutation=50,
    num_crossover=50,
    predictor_cfg=dict(
        type="MetricPredictor",
        handler_cfg=dict(type="GaussProcessHandler"),
        encoding_type="onehot",
        train_samples=60,
    ),
)
