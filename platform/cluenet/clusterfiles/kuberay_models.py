"""RayCluster, RayJob and RayService of KubeRay's `ray.io/v1`.

Source of the fields: the Go types of KubeRay 1.7, `ray-operator/apis/ray/v1/`. `status`, which the operator writes, and fields
that it says it no longer reads are left out.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from cluenet.clusterfiles.pods import Mount, PodTemplate, Quantity, Resources, Variable
from cluenet.clusterfiles.strict import Strict


class Metadata(Strict):
    name: str = Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=47)
    namespace: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class _Group(Strict):
    """Pods of one template."""

    template: PodTemplate
    rayStartParams: dict[str, str] = Field(default_factory=dict)
    resources: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)


class HeadGroup(_Group):
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] | None = None
    headService: dict[str, Any] | None = None
    enableIngress: bool = False
    ingressOptions: dict[str, Any] | None = None


class ScaleStrategy(Strict):
    workersToDelete: list[str] = Field(default_factory=list)


class WorkerGroup(_Group):
    groupName: str
    replicas: int = Field(0, ge=0)
    minReplicas: int = Field(0, ge=0)
    maxReplicas: int = Field(2**31 - 1, ge=0)
    idleTimeoutSeconds: int | None = Field(None, ge=0)
    priority: int = 0
    numOfHosts: int = Field(1, ge=1)
    scaleStrategy: ScaleStrategy = Field(default_factory=ScaleStrategy)
    suspend: bool = False


class AutoscalerOptions(Strict):
    version: Literal["v1", "v2"] | None = None
    upscalingMode: Literal["Default", "Aggressive", "Conservative"] = "Default"
    idleTimeoutSeconds: int | None = Field(None, ge=0)
    image: str | None = None
    imagePullPolicy: Literal["Always", "IfNotPresent", "Never"] | None = None
    resources: Resources | None = None
    securityContext: dict[str, Any] | None = None
    env: list[Variable] = Field(default_factory=list)
    envFrom: list[dict[str, Any]] = Field(default_factory=list)
    volumeMounts: list[Mount] = Field(default_factory=list)
    command: list[str] | None = None
    args: list[str] | None = None


class AuthOptions(Strict):
    mode: Literal["disabled", "token"] = "token"
    secretName: str | None = None
    enableK8sTokenAuth: bool = False


class UpgradeStrategy(Strict):
    type: Literal["Recreate", "None"] | None = None


class Storage(Strict):
    claimName: str = ""
    size: Quantity | None = None
    storageClassName: str | None = None
    accessModes: list[str] = Field(default_factory=list)
    subPath: str = ""
    deletionPolicy: Literal["DeleteWithCluster", "Retain"] | None = None


class Redis(Strict):
    value: str | None = None
    valueFrom: dict[str, Any] | None = None


class FaultTolerance(Strict):
    backend: Literal["redis", "rocksdb"] = "redis"
    redisAddress: str | None = None
    redisUsername: Redis | None = None
    redisPassword: Redis | None = None
    externalStorageNamespace: str | None = None
    storage: Storage | None = None


class ClusterSpec(Strict):
    rayVersion: str | None = None
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup] = Field(default_factory=list)
    enableInTreeAutoscaling: bool = False
    autoscalerOptions: AutoscalerOptions | None = None
    authOptions: AuthOptions | None = None
    gcsFaultToleranceOptions: FaultTolerance | None = None
    headServiceAnnotations: dict[str, str] = Field(default_factory=dict)
    upgradeStrategy: UpgradeStrategy | None = None
    networkPolicy: dict[str, Any] | None = None
    tlsOptions: dict[str, bool] | None = None
    historyServerOptions: dict[str, Any] | None = None
    managedBy: Literal["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"] | None = None
    suspend: bool = False


class SubmitterConfig(Strict):
    backoffLimit: int | None = Field(None, ge=0)


class JobSpec(Strict):
    entrypoint: str = ""
    runtimeEnvYAML: str = ""
    rayClusterSpec: ClusterSpec | None = None
    clusterSelector: dict[str, str] = Field(default_factory=dict)
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"] = "K8sJobMode"
    submitterPodTemplate: PodTemplate | None = None
    submitterConfig: SubmitterConfig | None = None
    backoffLimit: int = Field(0, ge=0)
    activeDeadlineSeconds: int | None = Field(None, ge=1)
    shutdownAfterJobFinishes: bool = False
    ttlSecondsAfterFinished: int = Field(0, ge=0)
    deletionStrategy: dict[str, Any] | None = None
    entrypointNumCpus: float = Field(0, ge=0)
    entrypointNumGpus: float = Field(0, ge=0)
    entrypointResources: str = ""
    jobId: str = ""
    metadata: dict[str, str] = Field(default_factory=dict)
    managedBy: Literal["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"] | None = None
    suspend: bool = False


class ServiceUpgrade(Strict):
    type: Literal["NewCluster", "NewClusterWithIncrementalUpgrade", "None"] | None = None
    clusterUpgradeOptions: dict[str, Any] | None = None


class ServiceSpec(Strict):
    serveConfigV2: str
    rayClusterConfig: ClusterSpec
    serveService: dict[str, Any] | None = None
    upgradeStrategy: ServiceUpgrade | None = None
    rayClusterDeletionDelaySeconds: int | None = Field(None, ge=0)
    excludeHeadPodFromServeSvc: bool = False


class RayCluster(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: ClusterSpec


class RayJob(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec


class RayService(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayService"]
    metadata: Metadata
    spec: ServiceSpec
