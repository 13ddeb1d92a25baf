# Step 2 of SPOS: search the trained supernet by evolution. STEP1 is its checkpoint:
# tools/dist_train.sh configs/nas/spos/spos_evolution_search_shufflenetv2_8xb2048_in1k.py 4 --work-dir W \
#     --cfg-options load_from=STEP1
_base_ = "./spos_supernet_shufflenetv2_8xb128_in1k.py"

# BN takes the statistics of the batch, a large one.
model = dict(norm_training=True)

train_cfg = dict(
    _base_.search_cfg,
    _delete_=True,
    dataloader=dict(_base_.test_dataloader, batch_size=2048),
    evaluator=_base_.test_evaluator,
    # MFLOPs as MMRazor counts them.
    constraints_range=dict(flops=(0.0, 330.0)),
)
