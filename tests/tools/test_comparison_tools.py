"""tools/compare_samplers.py and tools/plot_main_result.py."""

from __future__ import annotations

import json

import pytest

PSS = "default_hooks = dict(subnet_sampler=dict(pool_size=2))\n"
MUTUALNET = "default_hooks = dict(subnet_sampler=dict(_delete_=True, type='BaselineSamplerHook', method='mutualnet'))\n"


def fails(done, *words):
    assert done.code == 1 and "Traceback" not in done.err
    line = done.err.splitlines()[-1]
    assert line.startswith("error:") and all(word in line for word in words), line


# compare_samplers.py


@pytest.fixture
def configs(write_config):
    return [write_config(PSS, "pss_tiny.py"), write_config(MUTUALNET, "mutualnet_tiny.py")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seeds", 0, 1, 0], ["--seeds [0, 1, 0]", "0 is negative or given twice"]),
        (["--seeds", -1], ["-1 is negative"]),
        (["--jobs", 0], ["--jobs 0"]),
        (["--cfg-options", "randomness.seed=3"], ["give the seeds by --seeds"]),
        (["--cfg-options", "train_cfg.max_epochs"], ["key=value"]),
    ],
)
def test_bad_options(run_tool, configs, tmp_path, options, words):
    fails(run_tool("compare_samplers.py", *configs, "--out-dir", tmp_path / "out", *options), *words)
    assert not (tmp_path / "out").exists()


def test_out_dir_is_a_file(run_tool, configs, tmp_path):
    (tmp_path / "out").touch()
    fails(run_tool("compare_samplers.py", *configs, "--out-dir", tmp_path / "out"), "--out-dir", "is a file")


def test_configs_of_other_constraints_or_data(run_tool, configs, write_config, tmp_path):
    body = 'model = dict(constraints=[dict(metric="flops", first=0.3, last=0.5, step=0.2)])\n'
    other = write_config(body, "usnet_tiny.py")
    fails(run_tool("compare_samplers.py", configs[0], other, "--out-dir", tmp_path / "out"), "model.constraints")
    other = write_config("train_dataloader = dict(dataset=dict(indices=64))", "usnet_tiny.py")
    done = run_tool("compare_samplers.py", configs[0], other, "--out-dir", tmp_path / "out")
    fails(done, "train_dataloader.dataset.indices is 96", "64")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_fails(configs, run_tool, tmp_path):
    out = tmp_path / "out"
    options = ["compare_samplers.py", *configs, "--out-dir", out, "--seeds", 0, "--cfg-options"]
    fails(run_tool(*options, "train_dataloader.batch_size=97"), "train.py failed", "97", "run.log")
    # what the first attempt left is of other settings
    fails(run_tool(*options, "train_dataloader.batch_size=96"), "runs of other settings", "another --out-dir")


@pytest.mark.slow
def test_compares_and_continues(run_tool, configs, tmp_path):
    out = tmp_path / "out"
    fast = ["--cfg-options", "train_cfg.max_epochs=1", "param_scheduler.end=1", "test_cfg.top_k=1"]

    def compare(*options):
        return run_tool("compare_samplers.py", *configs, "--out-dir", out, *options)

    done = compare("--seeds", 0, *fast)
    assert done.code == 0, done.err[-2000:]
    first = {path: path.stat().st_mtime_ns for path in out.glob("*/seed0/*.pth")}
    assert len(first) == 2 and (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    # Lost on the way: the results of one run, of which the checkpoint is there.
    lost = out / "pss_tiny" / "seed0" / "pool_results.json"
    before = lost.read_text()
    lost.unlink()
    done = compare("--seeds", 0, 3, "--jobs", 2, *fast)
    assert done.code == 0, done.err[-2000:]
    assert lost.read_text() == before
    assert {path: path.stat().st_mtime_ns for path in first} == first  # nothing is trained twice
    summary = json.loads((out / "comparison.json").read_text())
    assert list(summary["methods"]) == ["pss", "mutualnet"]
    for method, config in (("pss", "pss_tiny"), ("mutualnet", "mutualnet_tiny")):
        largest = summary["methods"][method]["largest"]["values"]
        for seed in (0, 3):
            results = json.loads((out / config / f"seed{seed}" / "pool_results.json").read_text())
            assert results["subnets"][0]["metrics"]["accuracy/top1"] == largest[str(seed)]
    assert "| target | pss | mutualnet |" in (out / "comparison.md").read_text()
    assert "seeds 0 3; 1 epochs" in (out / "comparison.md").read_text()


USNET = """model = dict(architecture=dict(resolutions=[32]))
default_hooks = dict(subnet_sampler=dict(_delete_=True, type='BaselineSamplerHook', method='usnet'))
"""


@pytest.mark.slow
def test_equal_multiply_accumulates(run_tool, configs, write_config, tmp_path):
    out = tmp_path / "out"
    usnet = write_config(USNET, "usnet_tiny.py")
    options = ["--seeds", 0, "--cfg-options", "train_cfg.max_epochs=6", "param_scheduler.end=6", "test_cfg.top_k=1"]
    done = run_tool("compare_samplers.py", configs[0], usnet, "--equal-macs", "--out-dir", out, *options)
    assert done.code == 0, done.err[-2000:]
    summary = json.loads((out / "comparison.json").read_text())
    epochs = summary["epochs"]
    # All of US-Net's subnets have the largest resolution.
    assert epochs["pss"] == 6 and 1 <= epochs["usnet"] < 6
    cost = {}
    for method in epochs:
        results = json.loads((out / f"{method}_tiny" / "seed0" / "pool_results.json").read_text())
        cost[method] = results["training"]
        assert results["checkpoint"].endswith(f"epoch_{epochs[method]}.pth")
        assert results["training"]["images"] == 96 * epochs[method]
        settings = json.loads((out / f"{method}_tiny" / "settings.json").read_text())
        assert settings["param_scheduler"]["end"] == epochs[method]
    # Half an epoch is the most that rounding leaves; pools draw in proportion to their members from then on.
    assert abs(cost["usnet"]["gmacs"] / cost["pss"]["gmacs"] - 1) < 0.6 / epochs["usnet"]
    assert f"pss 6, usnet {epochs['usnet']} epochs, of equal cost" in (out / "comparison.md").read_text()


# plot_main_result.py


def write_results(path, model="SlimmableMobileNetV2", metric="flops", unit="MFLOPs", **data):
    subnets = [
        dict(name="largest", metric=None, target=None, resources={metric: 300.0}, metrics={"accuracy/top1": 73.0}),
        *(
            dict(name=f"{metric}_{t}", metric=metric, target=t, resources={metric: t + d}, metrics={"accuracy/top1": a})
            for t, d, a in [(100, 1.0, 65.0), (100, 2.0, 66.0), (200, 0.5, 70.0)]
        ),
    ]
    document = {"format": 1, "units": {metric: unit}, "dataset_size": 50000, "subnets": subnets, **data}
    path.write_text(json.dumps(document | ({"model": model} if model else {})))
    return path


@pytest.fixture
def drawn(monkeypatch):
    """The curves that were drawn last."""
    import pss_razor.visualization as visualization

    curves = []
    original = visualization.draw_main_result
    monkeypatch.setattr(visualization, "draw_main_result", lambda c: curves.extend(c) or original(c))
    return curves


def test_draws_the_best_of_every_target(run_tool, drawn, tmp_path):
    flops = write_results(tmp_path / "flops.json")
    cpu = write_results(tmp_path / "cpu.json", "SlimmableMobileNetV1", "latency_cpu", "us")
    old = write_results(tmp_path / "old.json", model=None)
    out = tmp_path / "new" / "figure.png"
    results = ["--results", f"F={flops}", f"C={cpu}", "--results", f"r50:O={old}"]
    done = run_tool("plot_main_result.py", *results, "--no-published", "--out", out)
    assert done.code == 0 and out.read_bytes().startswith(b"\x89PNG"), done.err
    points = ((102.0, 66.0), (200.5, 70.0))
    found = [(c.backbone, c.metric, c.label, c.unit, c.points, c.published) for c in drawn]
    assert found == [
        ("mbv2", "flops", "F", "MFLOPs", points, False),
        ("mbv1", "latency_cpu", "C", "us", points, False),
        ("r50", "flops", "O", "MFLOPs", points, False),
    ]


def test_published_points_are_drawn_by_default(run_tool, drawn, tmp_path):
    done = run_tool("plot_main_result.py", "--out", tmp_path / "figure.png")
    assert done.code == 0, done.err
    assert len(drawn) == 24 and all(curve.published for curve in drawn)


def test_results_on_other_data_are_told_by_their_classes_and_size(run_tool, drawn, tmp_path):
    data = [
        (dict(), None),
        (dict(dataset="ImageFolder", num_classes=1000), None),
        (dict(dataset="ImageFolder", num_classes=3), "ImageFolder, 3 classes, 50000 images"),
        (dict(dataset="CIFAR10", num_classes=10, dataset_size=10000), "CIFAR10, 10 classes, 10000 images"),
        (dict(dataset="ImageFolder", num_classes=1000, dataset_size=10000), "ImageFolder, 1000 classes, 10000 images"),
        (dict(dataset_size=360), "other data, 360 images"),  # of version 0.1
    ]
    files = [f"{n}={write_results(tmp_path / f'{n}.json', **own)}" for n, (own, _) in enumerate(data)]
    done = run_tool("plot_main_result.py", "--results", *files, "--out", tmp_path / "f.png")
    assert done.code == 0, done.err
    assert [curve.dataset for curve in drawn if not curve.published] == [expected for _, expected in data]


def test_bad_results(run_tool, tmp_path):
    def plot(*args, out="figure.png"):
        return run_tool("plot_main_result.py", "--out", tmp_path / out, *args)

    good = write_results(tmp_path / "good.json")
    old = write_results(tmp_path / "old.json", model=None)
    other = write_results(tmp_path / "other.json", model="MyNet")
    params = write_results(tmp_path / "params.json", metric="params", unit="M params")
    fails(plot("--results", f"A={old}"), str(old), "does not name its backbone", f"--results mbv2:A={old}")
    fails(plot("--results", f"A={other}"), "'MyNet'", f"--results mbv2:A={other}")
    fails(plot("--results", f"A={params}"), "no pools of")
    fails(plot("--results", str(good)), "write LABEL=FILE.json")
    fails(plot("--results", f"mbv9:A={good}"), "'mbv9' is none of ['mbv1', 'mbv2', 'r50']")
    fails(plot("--results", f"A={tmp_path / 'none.json'}"), "does not exist")
    fails(plot("--no-published"), "nothing to draw")
    fails(plot(out="figure.pdf"), "end the name with .png")
    assert not list(tmp_path.glob("figure*"))


def test_results_of_an_evaluation_name_their_backbone(call, tiny, trained, run_tool, drawn, tmp_path):
    call("test.py", tiny, trained, "--out", tmp_path / "results.json", "--cfg-options", "test_cfg.top_k=1")
    done = run_tool(
        "plot_main_result.py",
        "--no-published",
        "--results",
        f"T={tmp_path / 'results.json'}",
        "--out",
        tmp_path / "f.png",
    )
    assert done.code == 0, done.err
    (curve,) = drawn
    assert (curve.backbone, curve.metric, curve.unit) == ("mbv2", "flops", "MFLOPs") and len(curve.points) >= 1
    assert curve.dataset == "Digits, 10 classes, 48 images"
