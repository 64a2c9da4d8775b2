"""Cluster files: the shipped ones are what Ray, clouds and KubeRay read, and typos that these ignore are found in anybody's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray.autoscaler
import yaml

from cluenet import validation
from cluenet.cli import call
from cluenet.clusterfiles import clouds, kuberay, launcher
from cluenet.errors import RecipeError
from helpers.environments import ROOT

TOOLS = Path(sys.executable).parent  # linters that the development extra brings
CLUSTERS = ROOT / "clusters"
LAUNCHER = sorted(CLUSTERS.glob("*.yaml"))
KUBERAY = sorted((CLUSTERS / "kuberay").glob("*.yaml"))
SOURCES = Path(ray.autoscaler.__file__).parent / "_private"

Change = Callable[[dict[str, Any]], Any]


def changed(name: str, tmp_path: Path, change: Change) -> Path:
    values = yaml.safe_load((CLUSTERS / name).read_text())
    change(values)
    path = tmp_path / Path(name).name
    path.write_text(yaml.safe_dump(values))
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(RecipeError) as error:
        validation.check(path)
    assert str(path) in str(error.value)
    return [str(problem) for problem in error.value.problems]


# ------------------------------------------------------------------------------------------------ what is shipped


def test_all_shipped_files_are_seen():
    assert [path.stem for path in LAUNCHER] == ["aws", "azure", "gcp", "local_multi_node"]
    assert [path.stem for path in KUBERAY] == ["raycluster", "rayjob", "rayservice"]


@pytest.mark.parametrize("path", [*LAUNCHER, *KUBERAY], ids=lambda path: path.stem)
def test_a_shipped_file_is_valid(path: Path):
    validation.check(path)


@pytest.mark.parametrize("path", LAUNCHER, ids=lambda path: path.stem)
def test_ray_accepts_and_fills_in_a_shipped_file(path: Path):
    from ray.autoscaler._private.util import prepare_config, validate_config

    filled = prepare_config(yaml.safe_load(path.read_text()))
    validate_config(filled)
    starts = filled["head_start_ray_commands"][-1]
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in starts
    assert "--dashboard-host=127.0.0.1" in starts, "the dashboard runs anybody's code: it listens on the loopback only"
    assert not any("ray-wheels" in command for command in filled["setup_commands"]), "a nightly Ray over the image's"


@pytest.mark.parametrize("name", ["aws", "gcp", "azure"])
def test_workers_in_a_cloud_are_spot_gpus_that_scale_to_zero(name: str):
    values = yaml.safe_load((CLUSTERS / f"{name}.yaml").read_text())
    types = values["available_node_types"]
    head, workers = types.pop(values["head_node_type"]), types
    spot = re.compile("spot", re.IGNORECASE)
    assert head["resources"] == {"CPU": 0}
    assert not spot.search(json.dumps(head["node_config"]))
    assert all(spot.search(json.dumps(node["node_config"])) for node in workers.values())
    assert {node["min_workers"] for node in workers.values()} == {0}
    assert "gpu" in workers
    assert values["docker"]["head_image"]
    assert values["file_mounts"]


def test_every_setting_of_a_cloud_file_has_its_reason():
    """A comment on each choice: what a reader may want to change says why it is as it is."""
    for path in LAUNCHER[:3]:
        lines = path.read_text().splitlines()
        for key in ("max_workers:", "idle_timeout_minutes:", "min_workers:", "cache_stopped_nodes:", "file_mounts:"):
            at = next(i for i, line in enumerate(lines) if line.strip().startswith(key))
            assert "#" in lines[at] or lines[at - 1].strip().startswith("#"), f"{path.name}: {key}"


# ------------------------------------------------------------------------------------- the image and the script


def test_the_dockerfile_passes_its_linter_and_has_both_images():
    file = CLUSTERS / "Dockerfile"
    found = subprocess.run([str(TOOLS / "hadolint"), str(file)], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")
    text = file.read_text()
    assert re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE) == ["cpu", "cuda"]
    (version,) = re.findall(r"^ARG RAY=([\d.]+)-py311$", text, re.MULTILINE)
    assert version == ray.__version__
    for line in re.findall(r"^COPY --chown=\S+ (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / source).exists() for source in line.split()), line
    tags = {f"{ray.__version__.rpartition('.')[0]}-{target}" for target in ("cpu", "cuda")}
    named = {tag for path in (*LAUNCHER, *KUBERAY) for tag in re.findall(r"cluenet:(\S+)", path.read_text())}
    assert named == tags


SCRIPT = CLUSTERS / "slurm.sh"
RUNS = 'while [[ $1 != -- ]]; do shift; done; shift; "$@"'


def test_the_slurm_script_passes_its_linters():
    for command in (["bash", "-n", str(SCRIPT)], [str(TOOLS / "shellcheck"), str(SCRIPT)]):
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (found.returncode, found.stdout + found.stderr) == (0, "")


def slurm(folder: Path, *words: str, ends_with: int, ray: str = RUNS) -> subprocess.CompletedProcess[str]:
    """Runs the script where Slurm's commands and `python` write down what they are asked; `ray` runs the command."""
    programs = {
        "scontrol": "printf 'node1\\nnode2\\n'", "hostname": "echo 10.0.0.7 fe80::1",
        "srun": 'echo "srun $*" >> calls; while [[ $1 == --* ]]; do shift; done; "$@"',
        "ray": f'echo "ray $*" >> calls; {ray}',
        "python": f'echo "python $*" >> calls; exit {ends_with}',
    }  # fmt: skip
    (folder / "bin").mkdir()
    for name, script in programs.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / "bin" / name).chmod(0o755)
    variables = {
        "PATH": f"{folder / 'bin'}:/usr/bin:/bin", "SLURM_SUBMIT_DIR": str(folder), "SLURM_JOB_ID": "12345", "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_CPUS_PER_TASK": "16", "SLURM_GPUS_ON_NODE": "1",
    }  # fmt: skip
    return subprocess.run(["bash", str(SCRIPT), *words], env=variables, capture_output=True, text=True, check=False)


def test_the_slurm_script_runs_the_recipe_on_all_nodes(tmp_path: Path):
    done = slurm(tmp_path, "r.yaml", "name=two words", ends_with=0)
    assert done.returncode == 0, done.stderr
    *_, srun, of_ray, of_python = (tmp_path / "calls").read_text().splitlines()
    assert srun.startswith("srun --nodes=2 --ntasks=2")
    assert "symmetric-run --address 10.0.0.7:22345 --min-nodes 2 --num-cpus 16 --num-gpus 1 --" in of_ray
    assert of_python == "python -m cluenet run r.yaml name=two words --address 10.0.0.7:22345"
    assert not list(tmp_path.glob(".slurm-*"))


def test_a_run_that_fails_fails_the_slurm_job(tmp_path: Path):
    done = slurm(tmp_path, "r.yaml", ends_with=2)
    assert done.returncode != 0


def test_a_ray_that_does_not_start_fails_the_slurm_job(tmp_path: Path):
    """Ray 2.60 ends with 0 then, without having run the command."""
    done = slurm(tmp_path, "r.yaml", ends_with=0, ray="echo Failed to start Ray")
    assert done.returncode == 1
    assert "did not come to its end" in done.stderr


# --------------------------------------------------------------------- the models against who reads the files


def test_the_models_know_what_rays_schema_knows():
    schema = json.loads((SOURCES.parent / "ray-schema.json").read_text())["properties"]
    ours = set(launcher.CloudCluster.model_fields)
    assert ours == set(schema) - {"no_restart"}  # which the schema says users cannot set
    node = schema["available_node_types"]["patternProperties"][".*"]["properties"]
    assert set(launcher.NodeType.model_fields) == set(node)
    assert set(launcher.Docker.model_fields) == set(schema["docker"]["properties"])
    assert set(launcher.NodeDocker.model_fields) == set(node["docker"]["properties"])
    assert set(launcher.Auth.model_fields) == set(schema["auth"]["properties"])


INTERNAL = {"_config_cache_path", "msi", "nsg", "subnet", "list_of_node_ips"}
"""What Ray writes into `provider` itself."""


@pytest.mark.parametrize(("cloud", "folder"), [("aws", "aws"), ("gcp", "gcp"), ("azure", "_azure"), ("local", "local")])
def test_a_providers_keys_are_those_that_ray_reads(cloud: str, folder: str):
    text = "".join(path.read_text() for path in sorted((SOURCES / folder).glob("*.py")))
    read = set(re.findall(r'provider(?:_config)?"?\]?(?:\["|\.get\(\s*")(\w+)', text)) - INTERNAL
    assert read
    assert read <= set(clouds.CLOUDS[cloud][0].model_fields)


def test_an_azure_machine_has_the_parameters_of_rays_template():
    template = json.loads((SOURCES / "_azure" / "azure-vm-template.json").read_text())["parameters"]
    filled_in = {
        "vmName",
        "adminUsername",
        "publicKey",
        "vmTags",
        "vmCount",
        "provisionPublicIp",
        "msi",
        "nsg",
        "subnet",
        "zones",
    }
    assert set(clouds.AzureMachine.model_fields) - {"availability_zone"} == set(template) - filled_in


# ----------------------------------------------------------------------------------------------------- typos


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("aws.yaml", lambda v: v.update(idle_timeout_minuts=5), "idle_timeout_minuts: unknown key. Did you mean 'idle_timeout_minutes'?"),
        ("aws.yaml", lambda v: v.update(min_workers=1), "min_workers: unknown key. Did you mean 'max_workers'?"),
        ("aws.yaml", lambda v: v["provider"].update(cache_stoped_nodes=True), "provider.cache_stoped_nodes: unknown key. Did you mean 'cache_stopped_nodes'?"),
        ("aws.yaml", lambda v: v["provider"].update(type="asw"), "provider.type: 'asw' is not one that can be checked. Did you mean 'aws'?"),
        ("aws.yaml", lambda v: node(v).update(InstanceMarketOption={"MarketType": "spot"}), "gpu.node_config.InstanceMarketOption: unknown key. Did you mean 'InstanceMarketOptions'?"),
        ("aws.yaml", lambda v: node(v)["InstanceMarketOptions"].update(MarketTyp="spot"), "gpu.node_config.InstanceMarketOptions.MarketTyp: unknown key. Did you mean 'MarketType'?"),
        ("aws.yaml", lambda v: node(v)["BlockDeviceMappings"][0]["Ebs"].update(VolumeSise=5), "BlockDeviceMappings.0.Ebs.VolumeSise: unknown key. Did you mean 'VolumeSize'?"),
        ("aws.yaml", lambda v: v["available_node_types"]["gpu"].update(max_worker=5), "available_node_types.gpu.max_worker: unknown key. Did you mean 'max_workers'?"),
        ("aws.yaml", lambda v: v["available_node_types"]["gpu"].update(min_workers=9), "available_node_types.gpu.max_workers: is 8, below min_workers=9"),
        ("aws.yaml", lambda v: v["available_node_types"]["gpu"].update(min_workers=5, max_workers=5) or v.update(max_workers=4), "max_workers: is 4, but the node types' min_workers add up to 5"),
        ("aws.yaml", lambda v: v.update(head_node_type="haed"), "head_node_type: no such node type. Did you mean 'head'?"),
        ("aws.yaml", lambda v: v["docker"].pop("container_name"), "docker.container_name: is required"),
        ("gcp.yaml", lambda v: node(v)["scheduling"][0].update(premptible=True), "gpu.node_config.scheduling.0.premptible: unknown key. Did you mean 'preemptible'?"),
        ("gcp.yaml", lambda v: node(v).pop("machineType"), "gpu.node_config.machineType: is required"),
        ("azure.yaml", lambda v: node(v)["azure_arm_parameters"].update(priorty="Spot"), "azure_arm_parameters.priorty: unknown key. Did you mean 'priority'?"),
        ("azure.yaml", lambda v: node(v)["azure_arm_parameters"].update(priority="Spott"), "azure_arm_parameters.priority: Input should be 'Regular', 'Spot' or 'Low', not 'Spott'"),
        ("local_multi_node.yaml", lambda v: v["provider"].update(workers_ips=[]), "provider.workers_ips: unknown key. Did you mean 'worker_ips'?"),
        ("local_multi_node.yaml", lambda v: v["provider"].pop("worker_ips"), "provider: needs head_ip and worker_ips, or coordinator_address"),
        ("aws.yaml", lambda v: v["auth"].update(ssh_proxy_use_node_id=True), "Ray refuses it: 'ssh_proxy_command' is a required property"),
        ("local_multi_node.yaml", lambda v: v.update(available_node_types={}), "available_node_types: unknown key"),
    ],
)  # fmt: skip
def test_a_typo_in_a_launchers_file(name: str, change: Change, message: str, tmp_path: Path):
    assert message in "\n".join(problems(changed(name, tmp_path, change)))


def node(values: dict[str, Any]) -> dict[str, Any]:
    return values["available_node_types"]["gpu"]["node_config"]


def group(values: dict[str, Any]) -> dict[str, Any]:
    return values["spec"]["workerGroupSpecs"][0]


def container(values: dict[str, Any]) -> dict[str, Any]:
    return group(values)["template"]["spec"]["containers"][0]


def serve(change: Change) -> Change:
    """A change of the Serve config inside a RayService."""

    def apply(values: dict[str, Any]) -> None:
        inside = yaml.safe_load(values["spec"]["serveConfigV2"])
        change(inside)
        values["spec"]["serveConfigV2"] = yaml.safe_dump(inside)

    return apply


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("raycluster", lambda v: v.update(kind="RayClutser"), "kind: 'RayClutser' is not one that can be checked. Did you mean 'RayCluster'?"),
        ("raycluster", lambda v: v.update(apiVersion="ray.io/v1alpha1"), "apiVersion: Input should be 'ray.io/v1'"),
        ("raycluster", lambda v: v["spec"].update(enableInTreeAutoscalling=True), "spec.enableInTreeAutoscalling: unknown key. Did you mean 'enableInTreeAutoscaling'?"),
        ("raycluster", lambda v: v["spec"].update(enableInTreeAutoscaling=False), "spec.autoscalerOptions: has no effect without"),
        ("raycluster", lambda v: v["spec"]["autoscalerOptions"].update(idleTimeout=1), "spec.autoscalerOptions.idleTimeout: unknown key. Did you mean 'idleTimeoutSeconds'?"),
        ("raycluster", lambda v: group(v).update(maxReplica=3), "workerGroupSpecs.0.maxReplica: unknown key. Did you mean 'maxReplicas'?"),
        ("raycluster", lambda v: group(v).update(replicas=9), "workerGroupSpecs.0.replicas: is 9, outside of minReplicas=0 to maxReplicas=8"),
        ("raycluster", lambda v: group(v).update(groupName="cpu"), "workerGroupSpecs.0.groupName: 'cpu' is the name of another group too"),
        ("raycluster", lambda v: group(v).update(rayStartParams={"num-cpu": "1"}), "rayStartParams.num-cpu: unknown key. Did you mean 'num-cpus'?"),
        ("raycluster", lambda v: group(v).update(rayStartParams={"num-cpus": 1}), "rayStartParams.num-cpus: Input should be a valid string, not 1"),
        ("raycluster", lambda v: container(v).update(resource={}), "containers.0.resource: unknown key. Did you mean 'resources'?"),
        ("raycluster", lambda v: container(v)["resources"]["limits"].update(memory="16GB"), "containers.0.resources.limits.memory"),
        ("raycluster", lambda v: container(v)["volumeMounts"][0].update(name="share"), "volumeMounts.0.name: no volume 'share'. Did you mean 'shared'?"),
        ("raycluster", lambda v: group(v)["template"]["spec"].update(nodeSelectors={}), "template.spec.nodeSelectors: unknown key. Did you mean 'nodeSelector'?"),
        ("rayjob", lambda v: v["spec"].update(runtimeEnvYAML="env_var: {A: b}"), "spec.runtimeEnvYAML.env_var: unknown key. Did you mean 'env_vars'?"),
        ("rayjob", lambda v: v["spec"].update(runtimeEnvYAML="- a"), "spec.runtimeEnvYAML: is a map of a runtime environment, not list"),
        ("rayjob", lambda v: v["spec"].pop("entrypoint"), "spec.entrypoint: is required"),
        ("rayjob", lambda v: v["spec"].pop("rayClusterSpec"), "spec: needs one of rayClusterSpec"),
        ("rayjob", lambda v: v["spec"].update(shutdownAfterJobFinishes=False), "spec.ttlSecondsAfterFinished: has no effect"),
        ("rayjob", lambda v: v["spec"].update(backofLimit=1), "spec.backofLimit: unknown key. Did you mean 'backoffLimit'?"),
        ("rayservice", lambda v: v["spec"].update(rayClusterSpec=v["spec"].pop("rayClusterConfig")), "spec.rayClusterSpec: unknown key. Did you mean 'rayClusterConfig'?"),
        ("rayservice", serve(lambda s: s["applications"][0]["deployments"][2].update(num_gpus=1)), "spec.serveConfigV2.applications.0.deployments.2.num_gpus: unknown key"),
        ("rayservice", serve(lambda s: s["applications"][0]["args"]["serve"].update(prot=1)), "spec.serveConfigV2.applications.0.args.serve.prot: unknown key. Did you mean 'port'?"),
    ],
)  # fmt: skip
def test_a_typo_in_a_kuberay_file(name: str, change: Change, message: str, tmp_path: Path):
    assert message in "\n".join(problems(changed(f"kuberay/{name}.yaml", tmp_path, change)))


def test_all_problems_of_a_file_are_reported_at_once(tmp_path: Path):
    def spoil(values: dict[str, Any]) -> None:
        values["upscaling_sped"] = 1
        values["provider"]["regoin"] = values["provider"].pop("region")
        node(values)["InstanceTyp"] = "x"

    found = problems(changed("aws.yaml", tmp_path, spoil))
    assert len(found) == 4, found
    assert {one.split(":")[0] for one in found} == {
        "upscaling_sped", "provider.regoin", "provider.region", "available_node_types.gpu.node_config.InstanceTyp",
    }  # fmt: skip


def test_a_file_of_several_kubernetes_resources_says_which_one_is_wrong(tmp_path: Path):
    path = tmp_path / "both.yaml"
    cluster = yaml.safe_load((CLUSTERS / "kuberay" / "raycluster.yaml").read_text())
    path.write_text(yaml.safe_dump_all([cluster, cluster]))
    validation.check(path)
    path.write_text(yaml.safe_dump_all([cluster, {**cluster, "kind": "Pod"}]))
    assert problems(path) == [
        "document 2: kind: 'Pod' is not one that can be checked. Known: RayCluster, RayJob, RayService."
    ]


def test_start_options_are_those_of_ray_start():
    assert {"num-cpus", "num-gpus", "object-store-memory", "labels", "block"} <= kuberay.start_options()
    assert "num-cpu" not in kuberay.start_options()


# -------------------------------------------------------------------------------------------------- the command


def test_the_command_tells_files_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("data: {train: [clueworld]}\n")
    files = [*map(str, (*LAUNCHER, *KUBERAY)), str(recipe)]
    assert call(["validate", *files]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"{file}: ok" for file in files]
    assert err == ""


def test_the_command_checks_grids_with_their_recipes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "r.yaml").write_text("data: {train: [clueworld]}\n")
    grid = tmp_path / "g.yaml"
    grid.write_text("name: g\nbase: r.yaml\naxes: {model.clue_filter: [adaptive, keep_all]}\n")
    assert call(["validate", str(grid)]) == 0
    grid.write_text("name: g\nbase: r.yaml\naxes: {model.clue_filtre: [adaptive, keep_all]}\n")
    assert call(["validate", str(grid)]) == 2
    assert "model.clue_filtre" in capsys.readouterr().err


def test_what_is_no_yaml_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "x.yaml"
    path.write_text("a: [")
    assert call(["validate", str(path)]) == 2
    assert "cannot be read as YAML" in capsys.readouterr().err
