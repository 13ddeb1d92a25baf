"""What a user can get wrong ends in one line that names the thing, its value and the remedy, before any training."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import pytest
import torch


def fails(done, *words):
    """One line on stderr, no traceback, nothing trained."""
    assert done.code == 1, done.out[-2000:]
    assert "Traceback" not in done.err and "Epoch(" not in done.out
    assert [line for line in done.err.splitlines() if line.startswith("error:")] == [done.err.splitlines()[-1]]
    for word in words:
        assert word in done.err.splitlines()[-1]


FLOPS = 'dict(metric="flops", first=0.3, last=0.7, step=0.2)'
HOOK = 'dict(type="PrioritizedPoolSamplerHook")'

BAD_CONFIGS = {
    "unknown metric": (
        'model = dict(constraints=[dict(metric="latency", first=1, last=2, step=1)])',
        ["'latency'", "has no estimator", "['flops', 'params']"],
    ),
    "misspelt key of a constraint": (
        'model = dict(constraints=[dict(metric="flops", frist=0.3, last=0.7, step=0.2)])',
        ["'frist'", "did you mean 'first'?"],
    ),
    "missing key of a constraint": (
        'model = dict(constraints=[dict(metric="flops", first=0.3, step=0.2)])',
        ["misses ['last']", "example: metric='flops'"],
    ),
    "targets between steps": (
        'model = dict(constraints=[dict(metric="flops", first=0.3, last=0.75, step=0.2)])',
        ["last = 0.75", "try last = 0.7"],
    ),
    "same metric twice": (f"model = dict(constraints=[{FLOPS}, {FLOPS}])", ["'flops' twice"]),
    "no constraints": ("model = dict(constraints=[])", ["model.constraints is empty", "metric='flops'"]),
    "targets out of reach": (
        'model = dict(constraints=[dict(metric="flops", first=70, last=300, step=10)])',
        ["no target of flops from 70 to 300", "0.287584 to 0.747168"],
    ),
    "unknown type": ('model = dict(architecture=dict(type="NoSuchClassifier"))', ["NoSuchClassifier"]),
    "unknown backbone": (
        'model = dict(architecture=dict(backbone=dict(type="SlimmableMobileNetV9")))',
        ["SlimmableMobileNetV9"],
    ),
    "unknown argument": ("model = dict(architecture=dict(backbone=dict(widen_faktor=1.0)))", ["widen_faktor"]),
    "unknown argument of the hook": (
        "default_hooks = dict(subnet_sampler=dict(pool_sise=3))",
        ["pool_sise"],
    ),
    "pool_size": ("default_hooks = dict(subnet_sampler=dict(pool_size=0))", ["pool_size = 0"]),
    "p_explore": (
        "default_hooks = dict(subnet_sampler=dict(p_explore=(1.0, 0)))",
        ["p_explore = (1.0, 0)", "two positive numbers"],
    ),
    "no hook": (
        "default_hooks = dict(subnet_sampler=None)",
        ["PrioritizedPoolSamplerHook", "default_hooks.subnet_sampler"],
    ),
    "two hooks": (
        'custom_hooks = [dict(type="PrioritizedPoolSamplerHook", pool_size=3)]',
        ["2 hooks draw subnets", "default_hooks.subnet_sampler"],
    ),
    "accumulative_counts": (
        "optim_wrapper = dict(accumulative_counts=4)",
        ["accumulative_counts = 4", "enlarge train_dataloader.batch_size"],
    ),
    "batch larger than the dataset": (
        "train_dataloader = dict(batch_size=97)",
        ["train_dataloader yields no batch", "96 images", "batch_size is 97", "drop_last is True", "lower the batch"],
    ),
    "another number of classes": (
        "model = dict(architecture=dict(head=dict(num_classes=7)))",
        ["train_dataloader", "10 classes", "the head 7", "num_classes=10"],
    ),
    "missing dataset": (
        "train_dataloader = dict(dataset=dict(_delete_=True, type='ImageFolder', data_root='nowhere/imagenet', "
        "data_prefix='train', pipeline=[]))",
        ["nowhere/imagenet/train", "does not exist", "<class>/<image>"],
    ),
    "another model": (
        'model = dict(_delete_=True, type="mmcls.ImageClassifier", backbone=dict(type="mmcls.LeNet5", num_classes=10))',
        ["the model is a ImageClassifier", "model=dict(type='PSS'"],
    ),
    "resolutions": (
        "model = dict(architecture=dict(resolutions=[16, 24.5]))",
        ["[16, 24.5]", "whole numbers of pixels"],
    ),
    "missing key": ("model = None", ["has no 'model'"]),
    "missing test_cfg": ("test_cfg = None", ["has no 'test_cfg'", "configs/_base_"]),
    "misspelt key of the final test": ("test_cfg = dict(topk=3)", ["test_cfg has 'topk'", "PoolTestLoop", "'top_k'"]),
    "misspelt key of the validation": (
        "val_cfg = dict(calibration_batchs=3)",
        ["val_cfg has 'calibration_batchs'", "PoolValLoop", "'calibration_batches'"],
    ),
    "key of another loop": (
        "val_cfg = dict(out_file='a')",
        ["PoolValLoop does not take; it takes fp16, top_k, calibration_batches, decided_by, rule"],
    ),
    "no such loop": ("test_cfg = dict(type='PoolTestLop')", ["test_cfg.type = 'PoolTestLop' is no loop"]),
    "misspelt key": (
        "train_dataloader = None\ntrain_dataloadr = dict(batch_size=3)",
        ["has no 'train_dataloader'", "'train_dataloadr'"],
    ),
    "wrong syntax": ("model = dict(", ["cannot be read", "SyntaxError"]),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_bad_config(call, write_config, case):
    body, words = BAD_CONFIGS[case]
    fails(call("train.py", write_config(body)), *words)


@pytest.mark.parametrize("tool", ["train.py", "export_subnets.py"])
def test_a_file_where_a_folder_is_wanted(call, tiny, tmp_path, trained, tool):
    path = tmp_path / "file"
    path.write_text("kept")
    arguments = ["--work-dir", path] if tool == "train.py" else [trained, "--out-dir", path]
    fails(call(tool, tiny, *arguments), str(path), "choose another path")
    assert path.read_text() == "kept"


def test_missing_base_config(call, tmp_path):
    path = tmp_path / "config.py"
    path.write_text('_base_ = "no/such/base.py"\n')
    fails(call("train.py", path), str(path), "cannot be read", "no/such/base.py")


def test_missing_config(call):
    fails(call("train.py", "configs/pss/none.py"), "configs/pss/none.py does not exist", "configs/")


@pytest.mark.slow
def test_exit_code_and_streams(spawn, tmp_path):
    """The other tests run a tool in their own process; this one shows what a shell sees."""
    done = spawn("tools/train.py", tmp_path / "none.py")
    assert done.returncode == 1 and done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if "warn" not in line.lower()]
    assert line.startswith("error: config ") and "does not exist" in line


def test_partly_reachable_targets_are_left_out_with_one_warning(call, write_config, tmp_path):
    config = write_config(
        'model = dict(constraints=[dict(metric="flops", first=0.1, last=0.7, step=0.2)])\n'
        "train_cfg = dict(max_epochs=1)\nval_cfg = dict(top_k=1)"
    )
    done = call("train.py", config, "--work-dir", tmp_path / "work")
    assert done.code == 0, done.err
    warnings = [line for line in done.out.splitlines() if "Left out" in line]
    assert len(warnings) == 1
    assert "flops: no subnet has 0.1; reachable are 0.287584 to 0.747168 MFLOPs" in warnings[0]
    state = torch.load(tmp_path / "work" / "epoch_1.pth", weights_only=True)
    assert list(state["pss"]["pools"]["flops"]) == ["0.3", "0.5", "0.7"]


# Checkpoints


class Evil:
    """Unpickling this makes the file ``executed``."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def truncated(share):
    def make(path, trained):
        data = trained.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return make


def without_pools(path, trained):
    checkpoint = torch.load(trained, weights_only=True)
    del checkpoint["pss"]
    torch.save(checkpoint, path)


def evil_zip(path, trained):
    checkpoint = torch.load(trained, weights_only=True)
    checkpoint["evil"] = Evil(path.parent / "executed")
    torch.save(checkpoint, path)


def evil_pickle(path, trained):
    path.write_bytes(pickle.dumps({"state_dict": Evil(path.parent / "executed")}))


def evil_legacy(path, trained):
    torch.save({"state_dict": Evil(path.parent / "executed")}, path, _use_new_zipfile_serialization=False)


def other_zip(path, trained):
    shutil.make_archive(str(path.with_suffix("")), "zip", root_dir=path.parent, base_dir=".")
    path.with_suffix(".zip").rename(path)


BAD_CHECKPOINTS = {
    "missing": (lambda path, trained: None, ["does not exist"]),
    "folder": (lambda path, trained: path.mkdir(), ["does not exist"]),
    "empty": (lambda path, trained: path.touch(), ["0 bytes", "is not a torch checkpoint"]),
    "text": (lambda path, trained: path.write_text("epoch_3.pth"), ["is not a torch checkpoint"]),
    "truncated to 99 %": (truncated(0.99), ["is truncated", "copy it again"]),
    "truncated to half": (truncated(0.5), ["is truncated"]),
    "truncated to 1 %": (truncated(0.01), ["is truncated"]),
    "another zip": (other_zip, ["cannot be read"]),
    "without state_dict": (
        lambda path, trained: torch.save({"model": {}, "epoch": 3}, path),
        ["no 'state_dict' in ['epoch', 'model']"],
    ),
    "a list": (lambda path, trained: torch.save([1, 2], path), ["no 'state_dict' in list"]),
    "without pools": (without_pools, ["has no prioritized pools", "PrioritizedPoolSamplerHook"]),
    "malicious": (evil_zip, ["more than tensors and plain values", "refused"]),
    "malicious pickle": (evil_pickle, ["is not a torch checkpoint"]),
    "malicious legacy file": (evil_legacy, ["is not a torch checkpoint"]),
}


@pytest.mark.parametrize("case", BAD_CHECKPOINTS)
@pytest.mark.parametrize("tool", ["train.py", "test.py", "export_subnets.py"])
def test_bad_checkpoint(call, tiny, trained, tmp_path, tool, case):
    make, words = BAD_CHECKPOINTS[case]
    path = tmp_path / "bad.pth"
    make(path, trained)
    options = {
        "train.py": [tiny, "--resume", path],
        "test.py": [tiny, path],
        "export_subnets.py": [tiny, path, "--out-dir", tmp_path / "export"],
    }
    fails(call(tool, *options[tool]), str(path), *words)
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "export").exists()


def test_the_malicious_file_would_do_harm(trained, tmp_path):
    evil_zip(tmp_path / "bad.pth", trained)
    torch.load(tmp_path / "bad.pth", weights_only=False)
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("tool", ["train.py", "test.py"])
def test_checkpoint_with_other_tensors(call, tiny, trained, tmp_path, tool):
    checkpoint = torch.load(trained, weights_only=True)
    weights = checkpoint["state_dict"]
    weights["architecture.backbone.stem.weight"] = weights.pop("architecture.backbone.conv1.conv.weight")
    torch.save(checkpoint, tmp_path / "other.pth")
    done = call(tool, tiny, *(["--resume"] if tool == "train.py" else []), tmp_path / "other.pth")
    fails(done, "another model", "backbone.conv1.conv.weight is missing", "1 tensors missing, 1 too many")


def test_missing_checkpoint_names_its_neighbours(call, tiny, trained):
    fails(call("test.py", tiny, trained.with_name("epoch_9.pth")), "epoch_9.pth does not exist", "epoch_3.pth")


OTHER_MODELS = {
    "another backbone": (
        "model = dict(architecture=dict(backbone=dict(widen_factor=0.5)),\n"
        '    constraints=[dict(metric="params", first=0.5, last=0.7, step=0.1)])',
        ["another backbone", "backbone.conv1"],
    ),
    "another number of classes": (
        "model = dict(architecture=dict(head=dict(num_classes=7)))\n"
        "train_dataloader = dict(dataset=dict(metainfo=dict(classes=tuple('0123456'))))\n"
        "val_dataloader = train_dataloader\ntest_dataloader = train_dataloader",
        ["another number of classes", "head.fc", "num_classes"],
    ),
    "other targets": (
        'model = dict(constraints=[dict(metric="flops", first=0.3, last=0.5, step=0.2)])',
        ["do not fit the config's constraints", "in the checkpoint, not in the config"],
    ),
    "another range of widths": (
        "model = dict(architecture=dict(backbone=dict(width_range=(0.9, 1.0))),\n"
        '    constraints=[dict(metric="flops", first=0.3, last=0.7, step=0.2)])',
        ["checkpoint"],
    ),
}


@pytest.mark.parametrize("case", OTHER_MODELS)
@pytest.mark.parametrize("tool", ["train.py", "test.py"])
def test_checkpoint_of_another_model(call, write_config, trained, tool, case):
    body, words = OTHER_MODELS[case]
    config = write_config(body)
    fails(call(tool, config, *(["--resume", trained] if tool == "train.py" else [trained])), *words)


# tools/test.py and tools/export_subnets.py


def test_out_is_not_json(call, tiny, trained):
    fails(call("test.py", tiny, trained, "--out", "results.pkl"), "--out results.pkl", "end the name with .json")


@pytest.mark.parametrize("tool", ["train.py", "test.py"])
def test_cfg_options_without_an_equals_sign(call, tiny, trained, tool):
    options = [trained] if tool == "test.py" else []
    done = call(tool, tiny, *options, "--cfg-options", "test_cfg.top_k", "1")
    fails(done, "--cfg-options test_cfg.top_k", "key=value", "train_cfg.max_epochs=10")


def test_test_without_the_hook(call, write_config, trained):
    done = call("test.py", write_config("default_hooks = dict(subnet_sampler=None)"), trained)
    fails(done, "no pools to evaluate", "PrioritizedPoolSamplerHook", "default_hooks.subnet_sampler")


def test_test_with_another_number_of_classes(call, write_config, trained):
    body = "test_dataloader = dict(dataset=dict(metainfo=dict(classes=('a', 'b'))))"
    done = call("test.py", write_config(body), trained)
    fails(done, "test_dataloader", "2 classes", "the head 10", "num_classes=2")


def test_results_of_another_space(call, tiny, trained, tmp_path):
    results = tmp_path / "results.json"
    subnet = {"name": "largest", "resources": {}, "channels": {"stem": 8}, "resolution": 32}
    results.write_text(json.dumps({"format": 1, "subnets": [subnet]}))
    done = call("export_subnets.py", tiny, trained, "--out-dir", tmp_path / "export", "--results", results)
    fails(done, str(results), "another search space")


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, ["does not exist", "pss-test"]), ("a b", ["is not JSON"]), ("{}", ["is not a results file"])],
)
def test_bad_results(call, tiny, trained, tmp_path, content, words):
    results = tmp_path / "results.json"
    if content is not None:
        results.write_text(content)
    done = call("export_subnets.py", tiny, trained, "--out-dir", tmp_path / "export", "--results", results)
    fails(done, str(results), *words)
    assert not (tmp_path / "export").exists()


# Divergence


def test_diverged_training_stops(call, tiny):
    done = call("train.py", tiny, "--no-validate", "--cfg-options", "optim_wrapper.optimizer.lr=1e30")
    assert done.code == 1
    assert "the training loss has diverged; lower the learning rate" in done.err.splitlines()[-1]
    assert done.err.splitlines()[-1].startswith("error:")


@pytest.mark.parametrize(
    "setting",
    ["train_cfg.max_epoch=1", "model.mutator.type=SubnetMutatr", "optim_wrapper.optimizr=3"],
)
def test_a_misspelt_key_or_type(call, tiny, setting):
    done = call("train.py", tiny, "--cfg-options", setting)
    key = setting.split("=")[0].split(".")[-1]
    fails(done, "the config asks for something that cannot be built", "SubnetMutatr" if key == "type" else key)


def test_a_misspelt_key_of_an_evaluation(call, tiny):
    fails(call("train.py", tiny, "--cfg-options", "val_cfg.topk=1"), "val_cfg has 'topk'", "did you mean 'top_k'?")
