"""A searched subnet as a model: which one it is follows from its weights, or from a yaml."""

from pathlib import Path

import pytest
import torch
import yaml

from pss_razor.core import CheckpointError, ConfigError
from pss_razor.engine.launch import load_config
from pss_razor.registry import MODELS

from mmengine.logging import MMLogger
from mmrazor.structures import convert_fix_subnet, export_fix_subnet

SPOS = Path(__file__).resolve().parents[2] / "configs" / "nas" / "spos"
TINY = Path(__file__).parents[1] / "tiny" / "tiny_search.py"


@pytest.fixture(scope="module")
def algorithm():
    return MODELS.build(load_config(str(TINY), None, "none", "unused").model)


@pytest.fixture(scope="module")
def cfg():
    return load_config(str(TINY), None, "none", "unused").model.architecture


@pytest.fixture
def saved(algorithm, tmp_path):
    """A subnet with its yaml and its checkpoints: as our search writes it, and as MMRazor's."""
    space = algorithm.mutator.space
    subnet = space.decode(torch.tensor([0, 1, 2, 3, 0]))
    with algorithm.mutator.active(subnet):
        fix_subnet, network = export_fix_subnet(algorithm.architecture, slice_weight=True)
    (tmp_path / "subnet.yaml").write_text(yaml.safe_dump(convert_fix_subnet(fix_subnet)))
    state = network.state_dict()
    torch.save({"state_dict": state, "meta": {}}, tmp_path / "ours.pth")
    torch.save({"state_dict": {f"architecture.{k}": v for k, v in state.items()}, "meta": {}}, tmp_path / "theirs.pth")
    return tmp_path, subnet, state


def build(cfg, checkpoint=None, fix_subnet=None):
    init_cfg = dict(type="Pretrained", checkpoint=None if checkpoint is None else str(checkpoint))
    return MODELS.build(dict(type="searched_subnet", cfg=cfg, fix_subnet=fix_subnet, init_cfg=init_cfg))


@pytest.mark.parametrize("name", ["ours.pth", "theirs.pth"])
def test_from_a_checkpoint_alone(cfg, saved, assert_same, name):
    folder, _, state = saved
    assert_same(dict(build(cfg, folder / name).state_dict()), dict(state))


@pytest.mark.parametrize("prefix", ["", "architecture."])
def test_from_a_yaml_alone(cfg, saved, prefix):
    folder, subnet, state = saved
    content = {prefix + k: v for k, v in yaml.safe_load((folder / "subnet.yaml").read_text()).items()}
    (folder / "other.yaml").write_text(yaml.safe_dump(content))
    network = build(cfg, fix_subnet=str(folder / "other.yaml"))
    assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in state.items()}
    assert any(not torch.equal(v, state[k]) for k, v in network.state_dict().items()), "weights of its own"
    assert {p: network.get_submodule(p)._chosen for p in subnet} == dict(subnet)


def test_an_op_without_weights_is_found(tmp_path):
    """The MobileNet supernet has skip connections, which no weight tells of."""
    config = load_config(str(SPOS / "spos_subnet_mobilenet_proxyless_gpu_8xb128_in1k.py"), None, "none", "unused")
    path = SPOS / "mobilenet_proxyless_gpu_490m.yaml"
    config.model.fix_subnet = str(path)
    torch.save({"state_dict": MODELS.build(config.model).state_dict()}, tmp_path / "a.pth")
    config.model.fix_subnet = None
    config.model.init_cfg.checkpoint = str(tmp_path / "a.pth")
    network = MODELS.build(config.model)
    wanted = yaml.safe_load(path.read_text())
    assert sum(choice["chosen"] == "identity" for choice in wanted.values()) == 4
    assert {place: {"chosen": network.get_submodule(place)._chosen} for place in wanted} == wanted


class TestTheDefault:
    """MMRazor's subnet is the config's; what was searched and retrained goes before."""

    @pytest.fixture
    def config(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)  # the file is found from anywhere
        return load_config(str(SPOS / "spos_subnet_shufflenetv2_8xb128_in1k.py"), None, "none", "unused")

    @staticmethod
    def chosen(network, file):
        wanted = yaml.safe_load((SPOS / file).read_text())
        assert len(wanted) == 20
        return {place: {"chosen": network.get_submodule(place)._chosen} for place in wanted} == wanted

    def test_is_that_of_mmrazor(self, config):
        assert Path(config.model.fix_subnet).samefile(SPOS / "shufflenetv2_330m_mmrazor.yaml")
        network = MODELS.build(config.model)
        assert self.chosen(network, "shufflenetv2_330m_mmrazor.yaml")
        assert sum(parameter.numel() for parameter in network.parameters()) == 3_353_592

    def test_a_checkpoint_goes_before_it(self, config, tmp_path):
        default = config.model.fix_subnet
        config.model.fix_subnet = str(SPOS / "shufflenetv2_330m_paper.yaml")
        state = MODELS.build(config.model).state_dict()
        torch.save({"state_dict": state}, tmp_path / "searched.pth")
        config.model.fix_subnet = default
        config.model.init_cfg.checkpoint = str(tmp_path / "searched.pth")
        network = MODELS.build(config.model)
        assert self.chosen(network, "shufflenetv2_330m_paper.yaml")
        assert sum(parameter.numel() for parameter in network.parameters()) == 3_345_576
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_weights_of_another_subnet_go_before_the_file(cfg, saved, assert_same, capsys):
    folder, subnet, state = saved
    other = {place: {"chosen": "shuffle_5x5"} for place in subnet}
    MMLogger.get_instance("test_searched_subnet")  # the current one
    network = build(cfg, folder / "ours.pth", other)
    assert_same(dict(network.state_dict()), dict(state))
    logged = capsys.readouterr()
    assert "differ at 4 of 5 places, first at backbone.layers.0.0, where it is shuffle_3x3 and not shuffle_5x5" in (
        logged.out + logged.err
    )
    same = {place: {"chosen": op} for place, op in subnet.items()}
    build(cfg, folder / "ours.pth", same)
    assert "differ" not in capsys.readouterr().out


class TestErrors:
    def test_nothing_says_which(self, cfg):
        with pytest.raises(ConfigError, match=r"set model\.init_cfg\.checkpoint to the subnet_best\.pth.*fix_subnet"):
            build(cfg)

    def test_a_whole_supernet(self, cfg, algorithm, tmp_path):
        torch.save({"state_dict": algorithm.state_dict()}, tmp_path / "supernet.pth")
        with pytest.raises(
            CheckpointError, match=r"is of no single subnet of this supernet: at backbone\.layers\.0\.0"
        ):
            build(cfg, tmp_path / "supernet.pth")

    def test_another_number_of_classes(self, cfg, saved):
        with pytest.raises(CheckpointError, match="another number of classes"):
            build(dict(cfg, head=dict(cfg.head, num_classes=7)), saved[0] / "ours.pth")

    def test_a_yaml_of_another_supernet(self, cfg):
        with pytest.raises(ConfigError, match="fix_subnet is of another supernet: only one of them has"):
            build(cfg, fix_subnet=str(SPOS / "shufflenetv2_330m_paper.yaml"))

    @pytest.mark.parametrize("bad", [{"chosen": "conv"}, "shuffle_3x3", {}])
    def test_a_yaml_with_another_op(self, cfg, saved, bad):
        content = {place: {"chosen": choice} for place, choice in saved[1].items()}
        content["backbone.layers.0.1"] = bad
        with pytest.raises(ConfigError, match=r"fix_subnet has .* at backbone\.layers\.0\.1; the ops are"):
            build(cfg, fix_subnet=content)

    @pytest.mark.parametrize("text", ["[1]", "a: [", "!!python/object/apply:os.getcwd []"])
    def test_no_yaml_of_a_subnet(self, cfg, tmp_path, text):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"fix_subnet = .*bad\.yaml"):
            build(cfg, fix_subnet=str(tmp_path / "bad.yaml"))

    def test_a_missing_yaml(self, cfg):
        with pytest.raises(ConfigError, match=r"fix_subnet = nothing\.yaml cannot be read"):
            build(cfg, fix_subnet="nothing.yaml")

    def test_a_missing_checkpoint(self, cfg, tmp_path):
        with pytest.raises(CheckpointError, match="does not exist"):
            build(cfg, tmp_path / "nothing.pth")
