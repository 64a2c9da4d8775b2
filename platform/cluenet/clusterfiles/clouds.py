"""What `provider` and `node_config` may hold, by cloud. Ray checks neither: a typo there costs money, or a spot instance.

Keys of providers: those that `ray.autoscaler._private` of Ray 2.60 reads. Keys of nodes: EC2's RunInstances (AWS), the body of
Compute Engine's instances.insert (GCP), the parameters of Ray's `azure-vm-template.json` (Azure).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from cluenet.clusterfiles.strict import Strict


class _Provider(Strict):
    cache_stopped_nodes: bool = True
    use_internal_ips: bool = False


class KeyPair(Strict):
    key_name: str


class SecurityGroup(Strict):
    GroupName: str | None = None
    IpPermissions: list[dict[str, Any]] = Field(default_factory=list)


class AwsProvider(_Provider):
    type: Literal["aws"]
    region: str
    availability_zone: str | None = None
    key_pair: KeyPair | None = None
    security_group: SecurityGroup | None = None
    aws_credentials: dict[str, str] | None = None
    cloudwatch: dict[str, Any] | None = None


class GcpProvider(_Provider):
    type: Literal["gcp"]
    region: str
    availability_zone: str
    project_id: str | None
    gcp_credentials: dict[str, str] | None = None


class AzureProvider(_Provider):
    type: Literal["azure"]
    location: str
    resource_group: str
    subscription_id: str | None = None
    availability_zone: str = "auto"
    tags: dict[str, str] = Field(default_factory=dict)
    subnet_mask: str | None = None
    unique_id: str | None = None
    msi_name: str | None = None
    msi_resource_group: str | None = None
    use_external_head_ip: bool = False


class LocalProvider(_Provider):
    type: Literal["local"]
    head_ip: str | None = None
    worker_ips: list[str] | None = None
    coordinator_address: str | None = None
    external_head_ip: str | None = None


class _Spot(Strict):
    MaxPrice: str | None = None
    SpotInstanceType: Literal["one-time", "persistent"] = "one-time"
    BlockDurationMinutes: int | None = None
    ValidUntil: str | None = None
    InstanceInterruptionBehavior: Literal["hibernate", "stop", "terminate"] = "terminate"


class _Market(Strict):
    MarketType: Literal["spot", "capacity-block"]
    SpotOptions: _Spot | None = None


class _Volume(Strict):
    DeleteOnTermination: bool = True
    Iops: int | None = None
    SnapshotId: str | None = None
    VolumeSize: int | None = Field(None, ge=1, description="GiB.")
    VolumeType: Literal["standard", "io1", "io2", "gp2", "sc1", "st1", "gp3"] | None = None
    KmsKeyId: str | None = None
    Throughput: int | None = Field(None, description="MiB/s.")
    Encrypted: bool | None = None


class _BlockDevice(Strict):
    DeviceName: str
    VirtualName: str | None = None
    NoDevice: str | None = None
    Ebs: _Volume | None = None


class _Profile(Strict):
    Arn: str | None = None
    Name: str | None = None


class AwsNode(Strict):
    InstanceType: str
    ImageId: str | None = None
    KeyName: str | None = None
    UserData: str | None = None
    EbsOptimized: bool | None = None
    InstanceMarketOptions: _Market | None = None
    BlockDeviceMappings: list[_BlockDevice] | None = None
    IamInstanceProfile: _Profile | None = None
    SecurityGroupIds: list[str] | None = None
    SubnetIds: list[str] | None = Field(None, description="Ray's own: EC2 takes one SubnetId, Ray tries several.")
    AdditionalInfo: Any = None
    CapacityReservationSpecification: Any = None
    CpuOptions: Any = None
    CreditSpecification: Any = None
    DisableApiStop: Any = None
    DisableApiTermination: Any = None
    EnclaveOptions: Any = None
    HibernationOptions: Any = None
    InstanceInitiatedShutdownBehavior: Any = None
    Ipv6AddressCount: Any = None
    Ipv6Addresses: Any = None
    LaunchTemplate: Any = None
    LicenseSpecifications: Any = None
    MaintenanceOptions: Any = None
    MetadataOptions: Any = None
    Monitoring: Any = None
    NetworkInterfaces: Any = None
    Placement: Any = None
    PrivateDnsNameOptions: Any = None
    PrivateIpAddress: Any = None
    SecurityGroups: Any = None
    TagSpecifications: Any = None


class _BootDisk(Strict):
    diskSizeGb: int = Field(ge=10)
    sourceImage: str
    diskType: str | None = None
    diskName: str | None = None
    labels: dict[str, str] | None = None


class _Disk(Strict):
    boot: bool = False
    autoDelete: bool = True
    type: Literal["PERSISTENT", "SCRATCH"] = "PERSISTENT"
    interface: Literal["SCSI", "NVME"] | None = None
    deviceName: str | None = None
    source: str | None = None
    initializeParams: _BootDisk | None = None


class _Scheduling(Strict):
    """One setting each: Ray's own files have a list of such maps here."""

    preemptible: bool | None = None
    provisioningModel: Literal["SPOT", "STANDARD", "RESERVATION_BOUND"] | None = None
    instanceTerminationAction: Literal["STOP", "DELETE"] | None = None
    onHostMaintenance: Literal["MIGRATE", "TERMINATE"] | None = None
    automaticRestart: bool | None = None


class _Accelerator(Strict):
    acceleratorType: str
    acceleratorCount: int = Field(ge=1)


class GcpNode(Strict):
    machineType: str
    disks: list[_Disk]
    scheduling: list[_Scheduling] | None = None
    guestAccelerators: list[_Accelerator] | None = None
    labels: dict[str, str] | None = None
    advancedMachineFeatures: Any = None
    canIpForward: Any = None
    confidentialInstanceConfig: Any = None
    deletionProtection: Any = None
    description: Any = None
    hostname: Any = None
    metadata: Any = None
    minCpuPlatform: Any = None
    networkInterfaces: Any = None
    networkPerformanceConfig: Any = None
    params: Any = None
    privateIpv6GoogleAccess: Any = None
    reservationAffinity: Any = None
    resourcePolicies: Any = None
    serviceAccounts: Any = None
    shieldedInstanceConfig: Any = None
    sourceMachineImage: Any = None
    tags: Any = None


class _Billing(Strict):
    maxPrice: float = Field(description="-1: never evicted for its price.")


class AzureMachine(Strict):
    vmSize: str
    imagePublisher: str | None = None
    imageOffer: str | None = None
    imageSku: str | None = None
    imageVersion: str | None = None
    imageId: str | None = None
    osDiskSize: int | None = Field(None, ge=30, description="GiB.")
    priority: Literal["Regular", "Spot", "Low"] = "Regular"
    evictionPolicy: Literal["Deallocate", "Delete"] | None = None
    billingProfile: _Billing | None = None
    enableAcceleratedNetworking: bool | None = None
    availability_zone: str | None = Field(None, description="Ray's own, of this node type.")


class AzureNode(Strict):
    azure_arm_parameters: AzureMachine
    tags: dict[str, str] | None = None


CLOUDS: dict[str, tuple[type[BaseModel], type[BaseModel] | None]] = {
    "aws": (AwsProvider, AwsNode),
    "gcp": (GcpProvider, GcpNode),
    "azure": (AzureProvider, AzureNode),
    "local": (LocalProvider, None),
}
"""By `provider.type`: its model, and that of `node_config`; a local cluster has no node types."""
