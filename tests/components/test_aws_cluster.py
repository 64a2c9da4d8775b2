"""clusters/aws.yaml against AWS itself, as far as that can be had here: the API's own model, and moto's copy of the service."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cluenet.clusterfiles import clouds
from helpers.environments import ROOT

NOT_FOR_USERS = {
    "ClientToken", "DryRun", "MaxCount", "MinCount", "SubnetId",  # set by Ray
    "ElasticGpuSpecification", "ElasticInferenceAccelerators", "KernelId", "RamdiskId",  # of services that have ended
    "EnablePrimaryIpv6", "NetworkPerformanceOptions", "Operator", "SecondaryInterfaces",
}  # fmt: skip


def test_an_aws_node_has_the_parameters_of_run_instances():
    import botocore.session

    call = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances")
    theirs = set(call.input_shape.members)
    ours = set(clouds.AwsNode.model_fields) - {"SubnetIds"}
    assert ours <= theirs
    assert theirs - ours == NOT_FOR_USERS
    nested = clouds.AwsNode.model_fields["BlockDeviceMappings"], call.input_shape.members["BlockDeviceMappings"].member
    assert set(clouds._BlockDevice.model_fields) == set(nested[1].members)
    assert set(clouds._Volume.model_fields) <= set(nested[1].members["Ebs"].members)
    market = call.input_shape.members["InstanceMarketOptions"]
    assert set(clouds._Market.model_fields) == set(market.members)
    assert set(clouds._Spot.model_fields) == set(market.members["SpotOptions"].members)


def test_aws_starts_a_cluster_of_the_shipped_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ray's own bootstrap, as `ray up` runs it, and then its launching of a node, against moto's AWS."""
    import boto3
    from moto import mock_aws
    from ray.autoscaler._private.aws import config as aws
    from ray.autoscaler._private.util import prepare_config

    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setattr(aws.time, "sleep", lambda _: None)
    with mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
        filled = aws.bootstrap_aws(prepare_config(yaml.safe_load((ROOT / "clusters" / "aws.yaml").read_text())))
        for name, node in filled["available_node_types"].items():
            wanted = dict(node["node_config"])
            wanted["SubnetId"] = wanted.pop("SubnetIds")[0]
            ec2 = boto3.client("ec2", region_name=filled["provider"]["region"])
            (made,) = ec2.run_instances(MinCount=1, MaxCount=1, **wanted)["Instances"]
            assert made["InstanceType"] == node["node_config"]["InstanceType"], name
            assert (made.get("InstanceLifecycle") == "spot") == (name != "head")
