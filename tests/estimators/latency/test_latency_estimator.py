"""Latency tables: files, prediction, measuring."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pss_razor.core import ConfigError, Subnet
from pss_razor.estimators import BlockGeometry, LatencyEstimator, LatencyTable, latency_cost
from pss_razor.estimators.latency.inference_backends import BACKENDS, inference_backend
from pss_razor.estimators.latency.measure import find_geometries, measure_blocks, static_block

CONV = BlockGeometry("Conv2d", 32, 3, 24, None, 3, 2, 1)
PART = BlockGeometry("BasicBlock-0123456789", 16, None, None, None, None, None, None, widths=(16, 24))
BLOCK = BlockGeometry("MBV2Block", 16, 24, 16, 24, None, 1, None)


def additive_table(graph):
    """A latency for every block of a graph that is a simple function of its geometry."""
    return {g: g.in_size * 0.5 + g.cin * 0.01 + g.cout * 0.02 + (g.cmid or 0) * 0.003 for g in find_geometries(graph)}


class TestFile:
    def test_round_trip(self, tmp_path):
        latencies_us = {CONV: 1.5, BLOCK: 2.25, PART: 3.0}
        table = LatencyTable(latencies_us, "cpu", {"threads": 1}, (1.1, -3.0), interpolate=True)
        table.save(tmp_path / "table.json")
        assert LatencyTable.load(tmp_path / "table.json") == table

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
    def test_an_entry_that_is_no_latency(self, tmp_path, value):
        with pytest.raises(ConfigError, match=r"Conv2d, in_size=32, cin=3.* µs; measure it again"):
            LatencyTable({CONV: value}, "cpu")
        path = tmp_path / "table.json"
        LatencyTable({CONV: 12345.0}, "cpu").save(path)
        path.write_text(path.read_text().replace("12345.0", json.dumps(value)))
        with pytest.raises(ConfigError, match=r"table\.json: .*measure it again"):
            LatencyTable.load(path)

    @pytest.mark.parametrize(
        ("text", "message"),
        [("{", "is not JSON"), ("[]", "not a latency table"), ('{"format": 4}', "not a latency table of format 3")],
    )
    def test_another_file(self, tmp_path, text, message):
        (tmp_path / "table.json").write_text(text)
        with pytest.raises(ConfigError, match=message):
            LatencyTable.load(tmp_path / "table.json")

    def test_a_malformed_row(self, tmp_path):
        path = tmp_path / "table.json"
        LatencyTable({CONV: 1.0}, "cpu").save(path)
        document = json.loads(path.read_text())
        for row in ([1, 2], [*CONV, "fast"], [*CONV, True], [*CONV[:-1], [8.0], 1.0], [*CONV[:-1], 8, 1.0]):
            path.write_text(json.dumps({**document, "rows": [row]}))
            with pytest.raises(ConfigError, match="row"):
                LatencyTable.load(path)

    def test_the_hidden_widths_that_version_0_1_wrote(self, tmp_path):
        """Format 1 has the input width as the hidden one of separable blocks; in MobileNetV2's kind that means it."""
        rows = [
            ["Conv2d", 128, 3, 24, None, 3, 2, 1, 1.0],
            ["MBV1Block", 64, 24, 48, 24, None, 1, None, 2.0],
            ["MBV1Block", 64, 32, 48, 32, None, 1, None, 3.0],
            ["MBV2Block", 64, 24, 16, 24, None, 1, None, 4.0],
            ["MBV2Block", 64, 16, 24, 96, None, 2, None, 5.0],
            ["Linear", 1, 768, 1000, None, None, None, None, 6.0],
        ]
        path = tmp_path / "table.json"
        LatencyTable({}, "cpu").save(path)
        document = json.loads(path.read_text())
        document["columns"].remove("widths")
        path.write_text(json.dumps({**document, "format": 1, "rows": rows}))
        expected = {
            ("Conv2d", 128, 3, 24, None, 3, 2, 1): 1.0,
            ("MBV1Block", 64, 24, 48, None, None, 1, None): 2.0,
            ("MBV1Block", 64, 32, 48, None, None, 1, None): 3.0,
            ("MBV2Block", 64, 24, 16, 24, None, 1, None): 4.0,
            ("MBV2Block", 64, 16, 24, 96, None, 2, None): 5.0,
            ("Linear", 1, 768, 1000, None, None, None, None): 6.0,
        }
        table = LatencyTable.load(path)
        assert table.latencies_us == {BlockGeometry(*sizes): value for sizes, value in expected.items()}
        table.save(path)
        assert json.loads(path.read_text())["format"] == 3 and LatencyTable.load(path) == table
        # In format 2 a row means what it says.
        path.write_text(json.dumps({**document, "format": 2, "rows": rows}))
        assert list(LatencyTable.load(path).latencies_us) == [BlockGeometry(*row[:-1]) for row in rows]

    def test_the_shipped_mobilenet_v1_table_of_version_0_1(self, load_config, tmp_path):
        """As it was before its rows were converted, it is the same table."""
        path = tmp_path / "table.json"
        shipped = load_config("pss_mbv1_cpu").model.estimators.latency_cpu.table
        document = json.loads(Path(shipped).read_text())
        rows = [[*r[:4], r[2] if r[0] == "MBV1Block" else None, *r[5:]] for r in document["rows"]]
        path.write_text(json.dumps({**document, "format": 1, "rows": rows}))
        assert sum(row[4] is not None for row in rows) > 1000
        assert LatencyTable.load(path) == LatencyTable.load(shipped)

    def test_missing(self, tmp_path):
        with pytest.raises(ConfigError, match=r"no\.json does not exist"):
            LatencyTable.load(tmp_path / "no.json")


class TestPrediction:
    @pytest.mark.parametrize(("device", "metric"), [("cpu", "latency_cpu"), ("gpu", "latency_gpu")])
    def test_the_authors_latencies_of_all_402_subnets(self, reference, imagenet_mbv2, device, metric):
        """Their tables predict their latencies, the last conv at 1280 channels."""
        columns = ("in_size", "cin", "cout", "cmid", "kernel_size", "stride", "padding")
        with (reference / f"mbv2_latency_{device}.csv").open() as file:
            rows = {
                BlockGeometry(row["block_type"], *(int(row[c]) if row[c] else None for c in columns)): float(
                    row["latency_us"]
                )
                for row in csv.DictReader(file)
            }
        cost = latency_cost(LatencyTable(rows, device), imagenet_mbv2.cost_graph)
        records = json.loads((reference / "mbv2_subnet_costs.json").read_text())["subnets"]
        groups = ("stem", *(f"stage{i}" for i in range(1, 8)))
        subnets = [
            Subnet({**dict(zip(groups, r["channels"][:8], strict=True)), "resolution": r["resolution"]})
            for r in records
        ]
        predicted = cost(imagenet_mbv2.space.encode(subnets))
        np.testing.assert_allclose(predicted, [r[f"{metric}_us"] for r in records], rtol=1e-6)

    def test_sum_over_blocks_and_correction(self, imagenet_mbv2):
        graph = imagenet_mbv2.cost_graph
        latencies_us = additive_table(graph)
        plain = latency_cost(LatencyTable(latencies_us, "cpu"), graph)
        corrected = latency_cost(LatencyTable(latencies_us, "cpu", {}, (2.0, 100.0)), graph)
        indices = np.random.default_rng(0).integers(graph.space.shape, size=(5, len(graph.space)))
        for row in indices:
            total = 0.0
            for block in graph.blocks:
                names, geometries = block.groups(graph.space), block.geometries(graph.space)
                total += latencies_us[geometries[tuple(row[graph.space.position(name)] for name in names)]]
            assert plain(row[None])[0] == pytest.approx(total)
            assert corrected(row[None])[0] == pytest.approx(2 * total + 100)

    def test_a_table_of_another_space(self, imagenet_mbv2, tmp_path):
        latencies_us = additive_table(imagenet_mbv2.cost_graph)
        removed = [geometry for geometry in latencies_us if geometry.stride == 2][:3]
        for geometry in removed:
            del latencies_us[geometry]
        path = tmp_path / "table.json"
        LatencyTable(latencies_us, "cpu").save(path)
        estimator = LatencyEstimator(table=path, device="cpu")
        with pytest.raises(ConfigError) as error:
            estimator.build_cost(imagenet_mbv2.cost_graph)
        assert "lacks 3 blocks" in str(error.value) and str(removed[0]) in str(error.value)
        assert str(path) in str(error.value) and "pss-latency" in str(error.value)

    def test_a_table_of_another_device(self, tmp_path):
        LatencyTable({CONV: 1.0}, "cuda").save(tmp_path / "table.json")
        with pytest.raises(ConfigError, match="is of the device 'cuda', the config asks for 'cpu'"):
            LatencyEstimator(table=tmp_path / "table.json", device="cpu")

    def test_targets_spread_over_the_reachable_range(self, build_algorithm, imagenet_mbv2, tmp_path):
        path = tmp_path / "table.json"
        LatencyTable(additive_table(imagenet_mbv2.cost_graph), "cpu").save(path)
        algorithm = build_algorithm(
            "pss_mbv2_flops",
            estimators=dict(latency_cpu=dict(type="LatencyEstimator", table=str(path), device="cpu")),
            constraints=[dict(metric="latency_cpu", num_targets=17)],
        )
        (constraint,) = algorithm.constraints
        ends = algorithm.costs["latency_cpu"](
            algorithm.space.encode([algorithm.space.smallest, algorithm.space.largest])
        )
        assert len(constraint.targets) == 17
        assert constraint.nearest_target_index(ends).tolist() == [0, 16]


class TestMeasuring:
    def test_geometries_are_those_of_the_network(self, build_algorithm):
        """Each geometry is looked up in a real forward pass of the subnet that is said to have it."""
        algorithm = build_algorithm("pss_mbv2_flops_digits")
        found = find_geometries(algorithm.cost_graph)
        assert len(found) == 233
        algorithm.eval()
        for geometry, (name, subnet) in list(found.items())[::16]:
            sizes = {}

            def hook(module, inputs, output, sizes=sizes):
                sizes.update(cin=inputs[0].shape[1], cout=output.shape[1], side=inputs[0].shape[-1])

            handle = algorithm.architecture.get_submodule(name).register_forward_hook(hook)
            with algorithm.mutator.active(subnet), torch.no_grad():
                algorithm(torch.zeros(1, 3, 32, 32))
            handle.remove()
            assert (sizes["cin"], sizes["cout"]) == (geometry.cin, geometry.cout)
            assert geometry.block_type == "Linear" or sizes["side"] == geometry.in_size

    def test_measures_every_block_once_and_leaves_the_supernet(self, build_algorithm):
        algorithm = build_algorithm("pss_mbv2_flops_digits")
        before = {name: tensor.clone() for name, tensor in algorithm.state_dict().items()}
        blocks = dict(list(find_geometries(algorithm.cost_graph).items())[:60])
        prepare = inference_backend("torch", "cpu", 1)
        chunks = list(measure_blocks(algorithm.architecture, algorithm.mutator.active, blocks, prepare, "cpu", 2, 3))
        assert len(chunks) == 2
        timings = {geometry: timing for chunk in chunks for geometry, timing in chunk.items()}
        assert timings.keys() == blocks.keys()
        assert all(timing.median_us > 0 and timing.spread_us >= 0 for timing in timings.values())
        assert algorithm.mutator.active_subnet == algorithm.space.largest
        for name, tensor in algorithm.state_dict().items():
            assert torch.equal(tensor, before[name])

    @pytest.mark.parametrize(
        ("config", "conv", "activation"),
        [
            ("pss_mbv1_flops_digits", "backbone.stem.conv", torch.nn.ReLU6),
            ("pss_mbv2_flops_digits", "backbone.conv2.conv", torch.nn.ReLU6),
            ("pss_r50_flops_digits", "backbone.conv1", torch.nn.ReLU),
        ],
    )
    def test_a_conv_is_followed_by_what_follows_it_in_the_network(self, build_algorithm, config, conv, activation):
        algorithm = build_algorithm(config)
        blocks = find_geometries(algorithm.cost_graph)
        geometry, place = next((g, place) for g, place in blocks.items() if place[0] == conv)
        block, images = static_block(algorithm.architecture, algorithm.mutator.active, *place, geometry, "cpu", 1)
        leaves = [type(module) for module in block.modules() if not list(module.children())]
        assert leaves == [torch.nn.Conv2d, torch.nn.BatchNorm2d, activation]
        assert block(images).shape[1] == geometry.cout

    def test_backends_run_the_same_block(self, build_algorithm):
        pytest.importorskip("onnxruntime")
        algorithm = build_algorithm("pss_mbv2_flops_digits")
        blocks = find_geometries(algorithm.cost_graph)
        geometry = next(g for g in blocks if g.block_type == "MBV2Block" and g.in_size == 8)
        found = []
        for name in BACKENDS:
            torch.manual_seed(0)
            block, images = static_block(
                algorithm.architecture, algorithm.mutator.active, *blocks[geometry], geometry, "cpu", 2
            )
            with torch.inference_mode():
                result = inference_backend(name, "cpu", 1)(block, images)()
            found.append(torch.as_tensor(result[0] if isinstance(result, list) else result))
        assert found[0].shape == found[1].shape == (2, geometry.cout, *found[0].shape[2:])
        torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)

    def test_a_backend_that_cannot_be_had(self):
        with pytest.raises(ConfigError, match="threads = 0 must be at least 1"):
            inference_backend("torch", "cpu", 0)
        if not torch.cuda.is_available():
            with pytest.raises(ConfigError, match="torch sees no GPU here"):
                inference_backend("torch", "cuda", 1)
