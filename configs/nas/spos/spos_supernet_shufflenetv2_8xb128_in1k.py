# Step 1 of SPOS: train the supernet, one random op at each place in every iteration. For 4 GPUs:
# tools/dist_train.sh configs/nas/spos/spos_supernet_shufflenetv2_8xb128_in1k.py 4 --work-dir W
_base_ = [
    "../../_base_/models/spos_shufflenetv2.py",
    "../../_base_/settings/imagenet_spos.py",
]

# A subnet with the supernet's BN statistics says nothing; the search is what evaluates.
val_cfg = None
val_dataloader = None
val_evaluator = None
