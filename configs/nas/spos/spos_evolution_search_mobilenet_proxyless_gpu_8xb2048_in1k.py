# Step 2 of SPOS: search the trained supernet by evolution. STEP1 is its checkpoint:
# tools/dist_train.sh configs/nas/spos/spos_evolution_search_mobilenet_proxyless_gpu_8xb2048_in1k.py 4 --work-dir W \
#     --cfg-options load_from=STEP1
_base_ = "./spos_supernet_mobilenet_proxyless_gpu_8xb128_in1k.py"

# BN takes the statistics of the batch, a large one.
model = dict(norm_training=True)

train_cfg = dict(
    _delete_=True,
    type="ConstrainedSearchLoop",
    dataloader=dict(_base_.test_dataloader, batch_size=2048),
    evaluator=_base_.test_evaluator,
    max_epochs=20,
    num_candidates=50,
    top_k=10,
    num_mutation=25,
    num_crossover=25,
    mutate_prob=0.1,
    estimator_cfg=dict(type="OneShotResourceEstimator", input_size=224),
    # MFLOPs as MMRazor counts them.
    constraints_range=dict(flops=(0.0, 465.0)),
    score_key="accuracy/top1",
    resume_from=None,
)
