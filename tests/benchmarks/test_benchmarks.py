"""The benchmarks at sizes that say nothing about speed: that they run, and compare what they say they compare."""

from __future__ import annotations

import functools
import importlib
import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))

import activation_latency  # noqa: E402
import autoslim  # noqa: E402
import bundle  # noqa: E402
import candidate_costs  # noqa: E402
import common  # noqa: E402
import contenders  # noqa: E402
import conversion  # noqa: E402
import converted_step  # noqa: E402
import fashion_variants  # noqa: E402
import gpu  # noqa: E402
import host_settings  # noqa: E402
import image_loading  # noqa: E402
import pool_causes  # noqa: E402
import pool_evaluation  # noqa: E402
import pool_gains  # noqa: E402
import pool_simulation  # noqa: E402
import pretrained_start  # noqa: E402
import repeated_lines  # noqa: E402
import run_all  # noqa: E402
import sampling  # noqa: E402
import switching  # noqa: E402
import training_step  # noqa: E402

SIZE_32 = {"model.architecture.resolutions": [32], "model.constraints": [dict(metric="flops", num_targets=2)]}


def figures(*args, **kwargs):
    return {figure.name: figure for figure in args[0](**kwargs)}


def test_a_figure_says_whether_its_bar_is_met():
    figure = common.Figure("ratio", 1.5, "x", "the other 2 ms", at_most=1.08)
    assert str(figure) == "ratio: 1.5 x (baseline the other 2 ms; bar: at most 1.08: NOT MET)"
    assert common.Figure("ratio", 2.5, "x", at_least=2).met and common.Figure("ratio", 2.5, "x").met is None


def test_time_in_turn_takes_turns():
    order: list[str] = []
    medians = common.time_in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    assert order == ["a", "b"] * 3 and set(medians) == {"a", "b"}


def count_rounds(first, variable):
    """A contender that says which process it is in, by what it takes: an error where a round is not as expected."""
    seen = []

    def prepare(number):
        seen.append(number)
        assert seen == list(range(first, number + 1)) and os.environ.get("CONTENDER") == variable
        return lambda: time.sleep(0.1 if variable == "slow" else 0.05)

    return prepare


def test_contenders_are_timed_in_processes_of_their_own():
    def contender(variable):
        return contenders.Contender(functools.partial(count_rounds, -2, variable), {"CONTENDER": variable})

    times = contenders.time_contenders({"slow": contender("slow"), "quick": contender("quick")}, rounds=3, threads=1)
    assert [len(seconds) for seconds in times.values()] == [3, 3] and "CONTENDER" not in os.environ
    figure = contenders.compare_contenders(times, "slow", "quick", "the other", "here", at_most=5)
    assert 1.5 < figure.value < 2.5 and figure.spread[0] <= figure.value <= figure.spread[1] and figure.met
    assert "quartiles" in str(figure) and "the other" in str(figure)


def test_a_contender_that_fails_ends_the_comparison(capfd):
    wrong = contenders.Contender(functools.partial(count_rounds, 7, None))
    with pytest.raises(RuntimeError, match="the contender 'wrong' ended"):
        contenders.time_contenders({"wrong": wrong}, rounds=1, threads=1)
    assert "AssertionError" in capfd.readouterr().err


def test_contenders_need_a_round():
    with pytest.raises(SystemExit, match="error: rounds = 0: at least 1 is needed"):
        contenders.time_contenders({}, rounds=0, threads=1)


def test_ratios_are_of_the_same_round():
    times = {"ours": [1.0, 20.0, 300.0], "theirs": [0.5, 10.0, 150.0]}
    figure = contenders.compare_contenders(times, "ours", "theirs", "", "")
    assert (figure.value, figure.spread) == (2, (2, 2))


@pytest.mark.slow
def test_training_step():
    found = figures(training_step.measure, batch=2, side=32, rounds=2, threads=1)
    assert found["supernet_over_static"].value > 0 and found["autoslim_channels_last_over_supernet"].met is not None
    assert "2 rounds" in found["supernet_resolutions_over_static_resolutions"].baseline


@pytest.mark.slow
def test_host_settings():
    found = figures(host_settings.measure, batch=2, side=32, rounds=2, threads=1)
    assert found["glibc_keeps_memory_over_as_it_is"].value > 0


def test_every_script_is_run_by_run_all():
    # Some need files, other packages, a GPU, or half an hour.
    alone = {"common", "contenders", "autoslim", "run_all", "gpu", "export", "reference_figures", "conversion",
             "conversion_modelopt", "fashion_variants", "image_loading", "pool_causes", "pool_gains",
             "pretrained_start", "repeated_lines"}  # fmt: skip
    assert {path.stem for path in FOLDER.glob("*.py")} - alone == set(run_all.BENCHMARKS)


def test_repeated_lines_are_found_once_for_two_places():
    run = [f"x{i} = {i}" for i in range(8)]
    indented = "import a\n\n" + "\n# c\n".join(f"  {line}" for line in run)
    files = {"a.py": "\n".join(["y = 1", *run, "z = 1"]), "b.py": indented, "c.py": "\n".join(run[:5])}
    assert repeated_lines.repeated_places(files) == [("a.py", "b.py")]
    twice = {"a.py": "\n".join([*run, "y = 1", *run]), "b.py": "\n".join(run)}
    assert sorted(repeated_lines.repeated_places(twice)) == [("a.py", "a.py"), ("a.py", "b.py"), ("a.py", "b.py")]
    assert repeated_lines.repeated_places({"a.py": "x = 1\n" * 9}) == []


def test_noise_of_scores_of_known_spread():
    """Subnets that differ by 0.1 under batches that add 0.5 to all of them alike, and 0.2 to each by itself."""
    generator = np.random.default_rng(0)
    quality = generator.normal(size=(40, 1 + 30, 1)) * 0.1
    common_noise = generator.normal(size=(40, 1, 60)) * 0.5
    losses = 2.0 + quality + common_noise + generator.normal(size=(40, 31, 60)) * 0.2
    losses[:, 0] = 2.0 + common_noise[:, 0]  # the largest has the batch's noise alone
    found = pool_causes.noise(losses)
    plain, relative = found["plain"], found["relative"]
    assert plain["std_of_batches"] == pytest.approx(np.hypot(0.5, 0.2), rel=0.05)
    assert relative["std_of_batches"] == pytest.approx(0.2, rel=0.05)
    assert relative["std_of_subnets"] == pytest.approx(0.1, rel=0.1)
    assert relative["visits_until_equal"] == pytest.approx(4, rel=0.3)
    assert plain["tau_of_visits"][0] < relative["tau_of_visits"][0] < relative["tau_of_visits"][3]
    assert relative["tau_of_visits"][-1] > 0.9


def test_causes_of_a_tiny_run(straight, tmp_path, monkeypatch):
    out = tmp_path / "causes.json"
    arguments = ["pool_causes.py", str(straight), "--out", str(out), "--subnets", "2", "--batches", "2"]
    monkeypatch.setattr(sys, "argv", arguments)
    pool_causes.main()
    found = json.loads(out.read_text())
    assert len(found["drift"]["step"]) == 6  # three epochs of two logged intervals
    entries = found["temperature"]["entries_in_effect"]
    assert all(1 <= count <= found["temperature"]["entries"][0] + 1e-9 for count in entries)
    assert entries[0] > entries[-1]
    assert all(0 <= accuracy <= 100 for accuracy in found["calibration"]["accuracy"])
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_what_modelopt_makes_of_a_network(monkeypatch):
    """With a stand-in for ModelOpt, which is not installed here: it halves a hidden layer, or fails."""

    def network(hidden):
        torch.manual_seed(hidden)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, hidden), torch.nn.Linear(hidden, 2))

    class Converted(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.active = model

        def forward(self, images):
            return self.active(images)

    def sample(converted, sample_func):
        assert sample_func is min
        converted.active = network(4)

    nas = types.ModuleType("modelopt.torch.nas")
    nas.convert, nas.sample, nas.export = (lambda model, mode: Converted(model)), sample, lambda own: own.active
    for name in ("modelopt", "modelopt.torch"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "modelopt.torch.nas", nas)
    sys.modules["modelopt.torch"].nas = nas
    own = importlib.import_module("conversion_modelopt")
    found = own.examine(lambda: network(8), 2)
    assert found.pop("seconds") > 0 and found == {"smallest": 0.5, "logit_error": 0.0}
    nas.export = lambda converted: network(8)
    assert own.examine(lambda: network(8), 2)["logit_error"] > 0.1
    monkeypatch.delattr(nas, "sample")
    assert "AttributeError" in own.examine(lambda: network(8), 2)["error"]


@pytest.fixture(scope="module")
def algorithm():
    return common.build("pss_mbv2_flops", **SIZE_32)


def test_static_networks_compute_the_subnet(algorithm):
    model, _ = algorithm
    images = torch.randn(2, 3, 32, 32)
    for lean in (False, True):
        network = common.make_static_network(model, training_step.middle_subnet(model), lean).eval()
        with model.mutator.active(training_step.middle_subnet(model)), torch.no_grad():
            torch.testing.assert_close(network(images, mode="tensor"), model.eval()(images))


def test_autoslim_has_the_widths_of_our_subnet(algorithm):
    model, config = algorithm
    theirs = autoslim.build_algorithm(config, 32)
    subnet = training_step.middle_subnet(model)
    choices = autoslim.choices_of(theirs, model, subnet)
    autoslim.set_candidates(theirs, [choices])
    theirs.mutator.set_choices(choices)
    own = dict(model.architecture.named_modules())
    compared = 0
    with model.mutator.active(subnet):
        for name, module in theirs.architecture.named_modules():
            if isinstance(module, torch.nn.Conv2d):
                assert module.get_dynamic_params()[0].shape == own[name].get_dynamic_params()[0].shape, name
                compared += 1
    assert compared == 52


def test_static_and_supernet_step_train(algorithm):
    model, config = algorithm
    batch = common.make_batch(4, 32, 1000)
    subnet = training_step.middle_subnet(model)
    before = model.architecture.head.fc.weight.detach().clone()
    training_step.static_step(model, config, batch)(subnet)()
    assert torch.equal(model.architecture.head.fc.weight, before)
    training_step.supernet_step(model, config, batch)(subnet)()
    assert not torch.equal(model.architecture.head.fc.weight, before)


def test_switching():
    assert figures(switching.measure, switches=5, rounds=1)["switch"].value > 0


@pytest.mark.slow
def test_candidate_costs():
    assert figures(candidate_costs.measure, candidates=1000, rounds=1)["mbv2_flops_of_a_subnet"].value > 0


@pytest.mark.slow
def test_pool_evaluation():
    sizes = dict(images=8, subnets=2, side=32, batch=4, threads=1, device="cpu")
    result = figures(pool_evaluation.measure, **sizes)
    assert result["validation_images_decoded"].value == 8
    assert result["calibration_images_decoded"].value == 8
    assert result["subnets_of_other_accuracy"].value == 0


def test_pool_simulation():
    result = figures(pool_simulation.measure, epochs=4, steps=50, intervals=2)
    assert result["entries"].value > 100


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_script_refuses_without_a_gpu():
    done = subprocess.run([sys.executable, FOLDER / "gpu.py"], capture_output=True, text=True)
    assert done.returncode != 0 and done.stderr.strip().splitlines()[-1].startswith("error: torch sees no GPU here")


@pytest.mark.slow
def test_gpu_script_on_the_cpu():
    result = figures(gpu.measure, batch=2, side=56, rounds=1, images=8, subnets=1, device="cpu")
    assert result["mbv2_float32_over_static"].value > 0 and result["r50_bfloat16_over_static"].value > 0
    assert result["autoslim_channels_last_over_channels_last"].value > 0


@pytest.mark.slow
def test_bundle():
    found = figures(bundle.measure, switches=3, rounds=1, pools=2)
    assert 1 < found["mbv2_bundle_over_largest"].value < 1.2
    assert found["mbv1_switch"].value > 0 and sum("forward" in name for name in found) == 4
    assert all("differ by 0e+00" in f.baseline for name, f in found.items() if name.endswith("forward"))


def test_activation_latency():
    found = figures(activation_latency.measure, blocks=3, rounds=1, threads=1)
    assert list(found) == [
        "relu6_over_relu", "relu6_over_relu_spread", "relu_again_over_relu", "relu_again_over_relu_spread",
    ]  # fmt: skip
    assert found["relu6_over_relu"].value > 0 and "3 random blocks of MobileNetV1" in found["relu6_over_relu"].baseline


def test_variants_differ_in_one_option_each(tmp_path, monkeypatch):
    from pss_razor.engine.launch import load_config
    from pss_razor.registry import HOOKS

    monkeypatch.setattr(sys, "argv", ["fashion_variants.py", str(tmp_path)])
    fashion_variants.main()
    bases = {
        path: load_config(str(path), [], "none", "unused").to_dict()
        for path in (fashion_variants.BASE, fashion_variants.PLUS)
    }
    for name in fashion_variants.texts():
        config = load_config(str(tmp_path / name), [], "none", "unused")
        of_plus = name.startswith("plus/") or name == "diagnosed/scored_at_the_end.py"
        base = bases[fashion_variants.PLUS if of_plus else fashion_variants.BASE]
        changed = {key for key, value in config.to_dict().items() if value != base[key]}
        in_model = "targets_" in name or Path(name).stem in fashion_variants.OF_MODEL
        assert changed == {"model" if in_model else "default_hooks"}, name
        hook = HOOKS.build(config.default_hooks.subnet_sampler)
        assert (hook.score == "held_out") == (of_plus or name == "options/held_out.py")


def test_gains_of_pools_are_gathered_of_diagnoses(tmp_path, capsys, monkeypatch):
    """Gains of 3 and 1 points, and a pool without members, which has none."""
    pools, means = {}, {key: dict(mean=2.0, standard_error=1.0, pools=2) for key in pool_gains.KEPT}
    for target, pick in ((1.0, 73.0), (2.0, 71.0), (3.0, None)):
        figures = dict.fromkeys(pool_gains.KEPT, 150.0) | dict(
            pick=pick, fresh_mean=70.0, pick_minus_fresh=pick and pick - 70.0
        )
        pools[f"flops_{target}"] = dict(target=target, figures=figures)
    diagnosis = dict(step=40, images=9, smallest=dict(accuracy=72.0), largest=dict(accuracy=80.0), pools=pools)
    file, out = tmp_path / "diagnosis.json", tmp_path / "gains.json"
    file.write_text(json.dumps(diagnosis | dict(means=means)))
    monkeypatch.setattr(sys, "argv", ["pool_gains.py", f"short={file}", "--out", str(out)])
    pool_gains.main()
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("short: +2.0 ± 1.0 points over fresh draws (40 steps, 3 pools of")
    assert line.endswith("1 picks no better than the smallest subnet)")
    assert [own["pick_minus_fresh"] for own in json.loads(out.read_text())["short"]["pools"]] == [3.0, 1.0, None]
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_activation_latency_compares_the_activations_alone():
    block = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.Sequential(torch.nn.ReLU6(inplace=True)))
    other = activation_latency.with_relu(block)
    assert [type(m).__name__ for m in block.modules()][-1] == "ReLU6"
    assert type(other[1][0]) is torch.nn.ReLU and other[1][0].inplace
    images = torch.full((1, 3, 2, 2), 50.0)
    expected = torch.relu(block[0](images))
    assert expected.max() > 6
    torch.testing.assert_close(other(images), expected)


class TestImageLoading:
    SIZE = dict(height=75, width=100, side=32)

    def test_contenders_load_alike(self, tmp_path):
        """Before and shipped the same; other decoders the same but for the order of channels, which none may swap."""
        (path,) = image_loading.write_files(tmp_path, 1, 75, 100)
        common.init_default_scope("mmrazor")
        loaded = {}
        for name, transforms in image_loading.build_contenders(32).items():
            np.random.seed(0)
            torch.manual_seed(0)
            loaded[name] = image_loading.Files([path], 2, transforms)[1]["inputs"]
            assert loaded[name].shape == (3, 32, 32) and loaded[name].dtype == torch.uint8
        assert torch.equal(loaded["before"], loaded["shipped"])
        assert torch.equal(loaded["torchvision_decoder"], loaded["shipped"])
        assert not torch.equal(loaded["torchvision_decoder"].flip(0), loaded["shipped"])
        for name in loaded:
            if name.endswith("_decoder"):
                assert (loaded[name].float() - loaded["shipped"].float()).abs().mean() < 2, name

    def test_a_photograph_has_the_bytes_of_one(self, tmp_path):
        (path,) = image_loading.write_files(tmp_path, 1, 375, 500)
        assert 60_000 < Path(path).stat().st_size < 140_000

    @pytest.mark.slow
    def test_figures(self):
        found = figures(image_loading.measure, images=2, times=2, batch=2, rounds=2, **self.SIZE)
        assert "before_ColorJitter" in found and "shipped_PackPlanes" in found
        rates = {name for name in found if name.endswith("_images_a_second_and_core")}
        assert len(rates) >= 6 and all(figure.value > 0 for figure in found.values())
        assert found["shipped_over_before"].met is not None


@pytest.mark.slow
@pytest.mark.parametrize("name, runs", [("densenet121", 3), ("vit_b_16", 2)])
def test_draws_of_converted_networks(name, runs):
    found = figures(sampling.measure_converted, name=name, draws=20, rounds=1)
    assert len(found) == 4 * runs
    reached = [figure for figure in found.values() if figure.name.endswith("targets_reached")]
    assert len(reached) == runs and all(figure.met for figure in reached)
    assert all(figure.value > 0 for figure in found.values())
    assert json.dumps([figure.met for figure in found.values()])


@pytest.mark.slow
def test_draws_of_three_metrics_together():
    found = figures(sampling.measure_together, rounds=1)
    assert list(found) == [f"mbv1_multi_{what}" for what in ("samplers_setup", "draw_of_one", "samplers_memory")]
    assert "87 pools of 3 metrics" in found["mbv1_multi_samplers_setup"].baseline
    # The tables of weights alone take so much.
    assert 20 < found["mbv1_multi_samplers_memory"].value < 100


class TestConversion:
    def test_a_network_that_converts(self):
        import torchvision

        found = conversion.examine(lambda: torchvision.models.squeezenet1_1(weights=None), 64, 2, 1)
        assert found["dimensions"] == 25 and found["cost_error"] < 1e-12
        assert found["logit_error"] <= 1e-5 and found["onnx_error"] <= 1e-4

    def test_the_table(self):
        found = {"dimensions": 3, "searched": 0.5, "smallest": 0.25, "not_searched": {"roll": ["a", "b"], "x|y": ["c"]}}
        lines = list(conversion.tabulate({"one": found, "two": {"error": "no"}}))
        assert lines[2:] == ["| one | 3 | 50% | 0.25 | a: roll and 2 more |", "| two | - | - | - | no |"]

    def test_one_that_does_not(self):
        assert "nothing to search" in conversion.examine(torch.nn.Flatten, 8, 1).get("error", "")


class TestConvertedStep:
    """torchvision's MobileNetV2, converted, beside the hand-written one."""

    @pytest.fixture(scope="class")
    def pair(self):
        sizes = {**SIZE_32, "model.architecture.resolutions": [64]}
        return common.build("pss_mbv2_flops", **sizes)[0], converted_step.convert("mobilenet_v2", 64, depth=False)[0]

    def test_the_same_widths_have_the_same_flops(self, pair):
        hand, converted = pair
        generator = np.random.default_rng(0)
        drawn = [hand.space.decode(generator.integers(np.array(hand.space.shape))) for _ in range(20)]
        own = [converted_step.widths_of_torchvision(subnet, converted.space) for subnet in drawn]
        assert len(set(drawn)) == 20
        counts = [
            np.rint(algorithm.costs["flops"](algorithm.space.encode(subnets)) * 1e6).astype(int).tolist()
            for algorithm, subnets in ((hand, drawn), (converted, own))
        ]
        assert counts[0] == counts[1]

    def test_their_steps_run_the_same_subnets(self, pair):
        hand, converted = pair
        cost = converted.costs["flops"]
        before = converted.space
        drawn = [training_step.random_subnet(hand.space, number) for number in range(3)]
        converted_step.same_subnets(hand.space, converted, drawn)
        for name in ("smallest", "largest"):
            expected = hand.costs["flops"](hand.space.encode([getattr(hand.space, name)]))
            assert cost(before.encode([getattr(converted.space, name)])) == pytest.approx(expected, rel=1e-12)
        own = [converted_step.widths_of_torchvision(subnet, converted.space) for subnet in drawn]
        expected = hand.costs["flops"](hand.space.encode(drawn))
        assert cost(before.encode(own)) == pytest.approx(expected, rel=1e-12)
        with converted.mutator.active(own[0]), torch.no_grad():
            assert converted(torch.zeros(1, 3, 64, 64), mode="tensor").shape == (1, 1000)

    @pytest.mark.slow
    def test_figures(self):
        found = figures(converted_step.measure, batch=2, side=32, rounds=1, threads=1)
        assert list(found) == [
            "converted_resnet50_over_static",
            "converted_mobilenet_v3_large_over_static",
            "converted_mobilenet_v2_over_hand_written",
        ]
        assert all(figure.value > 0 and figure.met is not None for figure in found.values())


def test_the_pick_of_a_pool_is_chosen_on_other_images():
    def own(target, chosen, measured):
        metrics = dict(selection_metrics={"accuracy/top1": chosen}, metrics={"accuracy/top1": measured})
        return dict(name=f"flops_{target}", target=target, **metrics)

    results = {"subnets": [own(4.0, 70.0, 60.0), own(4.0, 71.0, 50.0), own(8.0, 80.0, 79.0)]}
    assert pretrained_start.best(results) == {"4": 50.0, "8": 79.0}
    assert pretrained_start.small_resnet18()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
