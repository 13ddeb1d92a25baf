# Cream, step 1: train the supernet; depth and input size follow from model.architecture.backbone.flops_range. The
# result is best_fix_subnet.yaml in the work directory.
_base_ = [
    "../../_base_/models/cream_supernet.py",
    "../../_base_/datasets/imagenet_cream_supernet.py",
    "../../_base_/schedules/imagenet_cream_120e.py",
]

# A path of the supernet is judged by its accuracy on training batches.
val_cfg = None
val_dataloader = None
val_evaluator = None
