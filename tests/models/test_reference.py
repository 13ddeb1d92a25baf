"""The same numbers as the PSS-Net authors' program: logits of subnets and whole training steps."""

import pytest
import torch

TOLERANCE = 1e-4


@pytest.mark.parametrize("training", [False, True])
def test_logits_of_subnets(reference, build_small, reference_subnet, load_reference_state, training):
    data = torch.load(reference / "mbv2_forward.pt", weights_only=True)
    algorithm = build_small(channels_last=False)
    load_reference_state(algorithm.architecture, data["state_dict"])
    algorithm.train(training)
    expected = data["logits_train" if training else "logits_eval"]
    assert len(data["subnets"]) == len(expected) == 8
    distances = []
    for record, logits in zip(data["subnets"], expected, strict=True):
        algorithm.mutator.set_choices(reference_subnet(record))
        with torch.no_grad():
            actual = algorithm(data["inputs"], mode="tensor")
        assert (actual - logits).abs().max() < TOLERANCE
        distances.append((actual - expected).abs().amax((1, 2)))
    # Each subnet is nearest to its own logits: the tolerance tells them apart.
    distances = torch.stack(distances) + torch.eye(8)
    assert distances.min() > 10 * TOLERANCE


@pytest.mark.parametrize("channels_last", [False, True])
def test_training_steps(
    reference, build_small, make_batch, reference_subnet, load_reference_state, build_optimizer, channels_last
):
    data = torch.load(reference / "mbv2_training_steps.pt", weights_only=True)
    algorithm = build_small(channels_last=channels_last)
    names = load_reference_state(algorithm.architecture, data["initial_state_dict"])
    space = algorithm.space
    assert dict(space.largest) == reference_subnet(data["max_subnet"])
    assert dict(space.smallest) == reference_subnet(data["min_subnet"])
    settings = ("lr", "momentum", "nesterov", "weight_decay")
    optimizer = build_optimizer(algorithm, **{f"optimizer.{name}": data[name] for name in settings})
    algorithm.train()
    for step in data["steps"]:
        algorithm.sampled_subnet = space.decode(space.encode([reference_subnet(step["subnet"])])[0])
        losses = algorithm.train_step(make_batch(step["inputs"], step["labels"]), optimizer)
        assert losses["largest_ce"].item() == pytest.approx(step["max_ce"], abs=TOLERANCE)
        assert losses["score"].item() == pytest.approx(step["subnet_metric"], abs=TOLERANCE)
        assert losses["sampled_kl"].item() == pytest.approx(step["subnet_kl"], abs=TOLERANCE)
        assert losses["smallest_kl"].item() == pytest.approx(step["min_kl"], abs=TOLERANCE)
        total = step["max_ce"] + step["subnet_kl"] + step["min_kl"]
        assert losses["loss"].item() == pytest.approx(total, abs=3 * TOLERANCE)
    parameters = {names[name]: parameter for name, parameter in algorithm.architecture.named_parameters()}
    assert set(parameters) == set(data["final_parameters"])
    for name, expected in data["final_parameters"].items():
        moved = (expected - data["initial_state_dict"][name]).abs().max()
        assert moved > 0, name
        difference = (parameters[name] - expected).abs().max()
        assert difference < TOLERANCE * expected.abs().max(), name
