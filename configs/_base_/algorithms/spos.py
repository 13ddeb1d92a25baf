# SPOS (arXiv 1904.00420): one random path in every iteration, then a search. A model adds backbone and width of the
# head to `supernet`, and makes it the architecture.
_base_ = ["../default_runtime.py", "../data_preprocessor.py"]

supernet = dict(
    type="mmcls.ImageClassifier",
    # MMRazor's own configs have none, so that they train on raw pixels.
    data_preprocessor=_base_.data_preprocessor_cfg,
    neck=dict(type="mmcls.GlobalAveragePooling"),
    head=dict(
        type="mmcls.LinearClsHead",
        num_classes=1000,
        loss=dict(type="mmrazor.SmoothCrossEntropyLoss", label_smooth_val=0.1),
        topk=(1, 5),
    ),
)
model = dict(type="SPOS", mutator=dict(type="SubnetMutator"))
# A step runs one op at each place.
model_wrapper_cfg = dict(type="mmrazor.PortableDistributedDataParallel", find_unused_parameters=True)

# Step 2, the search: a config adds dataloader, evaluator and constraints_range.
search_cfg = dict(
    type="ConstrainedSearchLoop",
    max_epochs=20,
    num_candidates=50,
    top_k=10,
    num_mutation=25,
    num_crossover=25,
    mutate_prob=0.1,
    estimator_cfg=dict(type="OneShotResourceEstimator", input_size=224),
    score_key="accuracy/top1",
    resume_from=None,
)
# Steps 3 and 4, retraining and testing: a config adds the supernet.
subnet_cfg = dict(type="searched_subnet", fix_subnet=None, init_cfg=dict(type="Pretrained", checkpoint=None))
