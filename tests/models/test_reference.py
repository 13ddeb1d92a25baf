"""The same numbers as the PSS-Net authors' program: logits of subnets and whole training steps.

The recorded training steps amplify rounding: the smallest subnet's last feature maps are 1 x 1, so that BN divides by
the deviation of 16 numbers. A relative change of 1e-7 of the initial weights (float32's precision) moves the second
step's losses by 1e-2 and the third's by 1e-1; even the number of threads shows. So the recorded figures are asked for
exactly in the first step and in outline afterwards, and all four steps are compared exactly, in float64, with an
independent program that has the recorded first step as well.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

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
    assert distances.min() > 5 * TOLERANCE


# expansion, blocks, stride of the first block; stage by stage
STAGES = ((1, 1, 1), (6, 2, 2), (6, 3, 2), (6, 4, 2), (6, 3, 1), (6, 3, 2), (6, 1, 1))
SETTINGS = ("lr", "momentum", "nesterov", "weight_decay")
LOSSES = dict(largest_ce="max_ce", score="subnet_metric", sampled_kl="subnet_kl", smallest_kl="min_kl")


@pytest.fixture(scope="module")
def training_steps(reference):
    return torch.load(reference / "mbv2_training_steps.pt", weights_only=True)


@pytest.fixture
def train(training_steps, build_small, make_batch, reference_subnet, load_reference_state, build_optimizer):
    """Run the recorded steps; returns the losses of each and the final parameters by the reference's names."""

    def run(channels_last, dtype=torch.float32):
        algorithm = build_small(channels_last=channels_last)
        names = load_reference_state(algorithm.architecture, training_steps["initial_state_dict"])
        algorithm.to(dtype).train()
        optimizer = build_optimizer(algorithm, **{f"optimizer.{name}": training_steps[name] for name in SETTINGS})
        space = algorithm.space
        assert dict(space.largest) == reference_subnet(training_steps["max_subnet"])
        assert dict(space.smallest) == reference_subnet(training_steps["min_subnet"])
        history = []
        for step in training_steps["steps"]:
            algorithm.sampled_subnet = space.decode(space.encode([reference_subnet(step["subnet"])])[0])
            batch = make_batch(step["inputs"].to(dtype), step["labels"])
            losses = {name: value.item() for name, value in algorithm.train_step(batch, optimizer).items()}
            total = losses["largest_ce"] + losses["sampled_kl"] + losses["smallest_kl"]
            assert losses["loss"] == pytest.approx(total, rel=1e-6)
            history.append({theirs: losses[ours] for ours, theirs in LOSSES.items()})
        parameters = {names[name]: p.detach() for name, p in algorithm.architecture.named_parameters()}
        return history, parameters

    return run


@pytest.mark.parametrize("channels_last", [False, True])
def test_recorded_training_steps(training_steps, train, channels_last):
    history, parameters = train(channels_last)
    first, second, *_ = training_steps["steps"]
    assert history[0] == pytest.approx({name: first[name] for name in history[0]}, abs=1e-5)
    assert history[1] == pytest.approx({name: second[name] for name in history[1]}, abs=0.06)
    for losses, step in zip(history, training_steps["steps"], strict=True):
        assert losses["max_ce"] == pytest.approx(step["max_ce"], rel=0.1)
    initial, final = training_steps["initial_state_dict"], training_steps["final_parameters"]
    assert set(parameters) == set(final)
    name = "classifier.0.bias"  # moved by what is not divided by a deviation
    assert (parameters[name] - final[name]).norm() < 0.2 * (final[name] - initial[name]).norm()


@pytest.mark.parametrize("channels_last", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_training_steps_equal_an_independent_program(
    training_steps, train, reference_subnet, monkeypatch, channels_last
):
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)  # keeps the project's own casts at float64
    history, parameters = train(channels_last, torch.float64)
    expected_history, expected_parameters = independent_training(training_steps, reference_subnet)
    first = training_steps["steps"][0]
    assert expected_history[0] == pytest.approx({name: first[name] for name in history[0]}, abs=1e-4)
    for losses, expected in zip(history, expected_history, strict=True):
        assert losses == pytest.approx(expected, abs=TOLERANCE)
    assert set(parameters) == set(expected_parameters) == set(training_steps["final_parameters"])
    for name, expected in expected_parameters.items():
        assert parameters[name].dtype == expected.dtype == torch.float64
        moved = (expected - training_steps["initial_state_dict"][name]).abs().max()
        # a bias that the next BN takes away moves by rounding only
        assert (parameters[name] - expected).abs().max() < TOLERANCE * moved + 1e-12, name


def independent_logits(weights, subnet, images):
    """MobileNetV2 in training mode, written with torch's functions and the reference's names only."""
    size = subnet["resolution"]
    widths = [subnet["stem"], *(subnet[f"stage{stage}"] for stage in range(1, 8))]
    x = F.interpolate(images, (size, size), mode="bilinear", align_corners=True)

    def conv_norm(x, conv, norm, cout, stride=1, activate=True, depthwise=False):
        weight = weights[f"{conv}.weight"][:cout]
        weight = weight if depthwise else weight[:, : x.size(1)]
        x = F.conv2d(x, weight, None, stride, weight.size(-1) // 2, groups=cout if depthwise else 1)
        x = F.batch_norm(x, None, None, weights[f"{norm}.weight"][:cout], weights[f"{norm}.bias"][:cout], True)
        return F.relu6(x) if activate else x

    x = conv_norm(x, "features.0.0", "features.0.1", widths[0], stride=2)
    block = 0
    for stage, (expansion, blocks, first_stride) in enumerate(STAGES):
        for number in range(blocks):
            block += 1
            body, position, inputs = f"features.{block}.body", 0, x
            hidden = expansion * x.size(1)
            if expansion > 1:
                x = conv_norm(x, f"{body}.0", f"{body}.1", hidden)
                position = 3
            stride = first_stride if number == 0 else 1
            x = conv_norm(x, f"{body}.{position}", f"{body}.{position + 1}", hidden, stride, depthwise=True)
            x = conv_norm(x, f"{body}.{position + 3}", f"{body}.{position + 4}", widths[stage + 1], activate=False)
            if number > 0:
                x = x + inputs
    x = conv_norm(x, "features.18.0", "features.18.1", 1280)
    return F.linear(x.mean((2, 3)), weights["classifier.0.weight"], weights["classifier.0.bias"])


def independent_training(data, reference_subnet):
    """The method's steps: CE of the largest, KL of the sampled and the smallest to it, one SGD step."""
    weights = {
        name: nn.Parameter(data["initial_state_dict"][name].double().clone()) for name in data["final_parameters"]
    }
    # Weight decay on ordinary convs and the linear weight: more than one input channel a filter, or two dimensions.
    decayed = [w for w in weights.values() if w.dim() == 2 or (w.dim() == 4 and w.size(1) > 1)]
    others = [w for w in weights.values() if not any(w is d for d in decayed)]
    settings = {name: data[name] for name in ("lr", "momentum", "nesterov")}
    groups = [dict(params=decayed, weight_decay=data["weight_decay"]), dict(params=others, weight_decay=0.0)]
    optimizer = torch.optim.SGD(groups, **settings, foreach=False)
    history = []
    for step in data["steps"]:
        images, labels = step["inputs"].double(), step["labels"]
        subnets = (data["max_subnet"], step["subnet"], data["min_subnet"])
        largest, sampled, smallest = (independent_logits(weights, reference_subnet(s), images) for s in subnets)
        cross_entropy = -largest.log_softmax(1)[range(len(labels)), labels].mean()
        teacher = largest.detach().softmax(1)

        def divergence(student, teacher=teacher):
            return (teacher * (teacher.log() - student.log_softmax(1))).sum(1).mean()

        losses = dict(max_ce=cross_entropy, subnet_kl=divergence(sampled), min_kl=divergence(smallest))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        losses["subnet_metric"] = sampled.log_softmax(1)[range(len(labels)), labels].mean()
        history.append({name: value.item() for name, value in losses.items()})
    return history, {name: weight.detach() for name, weight in weights.items()}
