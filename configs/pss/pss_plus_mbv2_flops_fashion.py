# PSS+ on Fashion-MNIST: pools are filled by scores on held-out images, and then trained; see docs/evidence.md.
_base_ = "./pss_mbv2_flops_fashion.py"

default_hooks = dict(
    subnet_sampler=dict(
        score="held_out",
        # What is explored has one width multiplier for all layers; until the first scoring, all is explored.
        shared_share=1.0,
        # The narrowest subnets of high resolutions are the best cheap ones, and are hardly drawn otherwise.
        smallest_resolution="any",
        p_explore=(0.05, 0.05),
        temperature=(0.02, 0.02),
        rescoring=[
            dict(at=0.2, images=192, fresh=20, keep=5),
            dict(at=0.45, images=256, fresh=3, keep=2),
            dict(at=0.7, images=512, keep=1),
        ],
        scoring_dataloader=_base_.scoring_dataloader,
    )
)
