"""The documented commands of SPOS: four steps, each from what the one before has left."""

import json
from pathlib import Path

import pytest
import torch
import yaml

SPOS = Path(__file__).resolve().parents[2] / "configs" / "nas" / "spos"
KINDS = ("shufflenetv2", "mobilenet_proxyless_gpu")
# What makes the digits configs short.
FEW = ["train_dataloader.dataset.indices=128", "test_dataloader.dataset.indices=60", "test_dataloader.batch_size=60"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_documented_files_are_there(kind):
    assert (SPOS / f"spos_supernet_{kind}_8xb128_in1k.py").is_file()
    assert (SPOS / f"spos_evolution_search_{kind}_8xb2048_in1k.py").is_file()
    assert (SPOS / f"spos_subnet_{kind}_8xb128_in1k.py").is_file()


@pytest.mark.slow
def test_four_steps_on_digits(call, tmp_path):
    def config(step):
        return SPOS / f"spos_{step}_shufflenetv2_digits.py"

    def run(tool, *args):
        done = call(tool, *args)
        assert done.code == 0, done.err[-2000:]

    run("train.py", config("supernet"), "--work-dir", tmp_path / "1", "--cfg-options", "train_cfg.max_epochs=1", *FEW)
    search = [
        *("--cfg-options", f"load_from={tmp_path / '1' / 'epoch_1.pth'}", *FEW),
        *("train_cfg.num_candidates=4", "train_cfg.num_mutation=2", "train_cfg.num_crossover=2"),
        *("train_cfg.top_k=2", "train_cfg.dataloader.dataset.indices=60"),
    ]
    run("train.py", config("evolution_search"), "--work-dir", tmp_path / "2", *search, "train_cfg.max_epochs=1")
    run(
        "train.py",
        config("evolution_search"),
        "--work-dir",
        tmp_path / "2",
        "--resume",
        *search,
        "train_cfg.max_epochs=2",
    )
    state = json.loads((tmp_path / "2" / "search_epoch_2.json").read_text())
    assert len(state["known"]) == 8 + 4, "two epochs of four candidates, and the children of the last"
    found = yaml.safe_load((tmp_path / "2" / "best_fix_subnet.yaml").read_text())
    assert all(record["measured"]["flops"] <= 2.1 for record in state["top_k_candidates"])

    def checkpoint(path):
        return ["--cfg-options", f"model.init_cfg.checkpoint={path}"]

    step2 = checkpoint(tmp_path / "2" / "subnet_best.pth")
    run("train.py", config("subnet"), "--work-dir", tmp_path / "3", *step2, "train_cfg.max_epochs=1", *FEW)
    retrained = torch.load(tmp_path / "3" / "epoch_1.pth", weights_only=True)["state_dict"]
    for place, choice in found.items():
        assert {n.split("._candidates.")[1].split(".")[0] for n in retrained if n.startswith(place)} == {
            choice["chosen"]
        }
    step3, out = tmp_path / "3" / "epoch_1.pth", tmp_path / "accuracy.json"
    run("test.py", config("subnet"), "none", "--work-dir", tmp_path / "4", "--out", out, *checkpoint(step3), *FEW)
    accuracy = json.loads(out.read_text())
    assert 0 <= accuracy["accuracy/top1"] <= accuracy["accuracy/top5"] <= 100
    # the same by naming both, as for other networks
    run("test.py", config("subnet"), step3, "--work-dir", tmp_path / "4", "--out", out, *checkpoint(step3), *FEW)
    assert json.loads(out.read_text()) == accuracy


@pytest.mark.slow
def test_a_search_with_a_predictor(call, tmp_path):
    pytest.importorskip("pydacefit", reason="pip install 'pss_razor[predictor]'")
    config = SPOS / "spos_evolution_search_predictor_shufflenetv2_digits.py"
    options = ["train_cfg.max_epochs=2", "train_cfg.predictor_cfg.train_samples=8", *FEW]
    options += ["train_cfg.dataloader.dataset.indices=60", "train_cfg.predictor_cfg.encoding_type=normal"]
    done = call("train.py", config, "--work-dir", tmp_path, "--cfg-options", *options)
    assert done.code == 0, done.err[-2000:]
    state = json.loads((tmp_path / "search_epoch_2.json").read_text())
    assert len(state["samples"]) == 8 and len(state["top_k_candidates"]) == 10
    assert all(record["measured"]["flops"] <= 2.1 for record in (*state["samples"], *state["top_k_candidates"]))
    meta = torch.load(tmp_path / "subnet_best.pth", weights_only=True)["meta"]
    assert max(record["measured"]["score"] for record in state["samples"]) <= meta["score"] <= 100


def test_none_is_no_checkpoint_of_pools(call, tiny):
    done = call("test.py", tiny, "none")
    assert done.code == 1 and "checkpoint none does not exist" in done.err


def test_no_subnet(call):
    done = call("test.py", SPOS / "spos_subnet_shufflenetv2_digits.py", "none")
    assert done.code == 1 and "it is not said which subnet" in done.err and "Traceback" not in done.err


def test_new_weights_are_not_tested(call):
    """The ImageNet config says by itself which subnet it retrains."""
    done = call("test.py", SPOS / "spos_subnet_shufflenetv2_8xb128_in1k.py", "none")
    assert done.code == 1 and "no weights to test" in done.err and "Traceback" not in done.err


def test_an_unmeasured_range_ends_before_the_search(call):
    options = ["--cfg-options", "train_cfg.constraints_range.latency=10"]
    done = call("train.py", SPOS / "spos_evolution_search_shufflenetv2_digits.py", *options)
    assert done.code == 1 and "'latency' is asked for, which is not measured" in done.err
