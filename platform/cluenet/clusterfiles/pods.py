"""Pod templates inside KubeRay's files: the keys of `core/v1`, and that what is mounted is there.

Source: the API reference of Kubernetes 1.34, PodSpec and Container. What lies deeper in rarely used parts is left to Kubernetes,
which refuses what it does not know when the file is applied with `kubectl apply --validate=strict`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from cluenet.clusterfiles.strict import Strict
from cluenet.errors import Problem, suggestion

Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|[kMGTPE]|[KMGTPE]i)?$")] | int | float
"""4, "500m", "16Gi"."""


class Metadata(Strict):
    name: str | None = None
    generateName: str | None = None
    namespace: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Variable(Strict):
    name: str
    value: str | None = None
    valueFrom: dict[str, Any] | None = None


class Port(Strict):
    containerPort: int = Field(ge=1, le=65535)
    name: str | None = Field(None, max_length=15)
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    hostPort: int | None = None
    hostIP: str | None = None


class Resources(Strict):
    limits: dict[str, Quantity] = Field(default_factory=dict)
    requests: dict[str, Quantity] = Field(default_factory=dict)
    claims: list[dict[str, str]] = Field(default_factory=list)


class Mount(Strict):
    name: str
    mountPath: str
    subPath: str | None = None
    subPathExpr: str | None = None
    readOnly: bool = False
    recursiveReadOnly: str | None = None
    mountPropagation: str | None = None


class Container(Strict):
    name: str
    image: str
    imagePullPolicy: Literal["Always", "IfNotPresent", "Never"] | None = None
    command: list[str] | None = None
    args: list[str] | None = None
    env: list[Variable] = Field(default_factory=list)
    ports: list[Port] = Field(default_factory=list)
    resources: Resources = Field(default_factory=Resources)
    volumeMounts: list[Mount] = Field(default_factory=list)
    envFrom: Any = None
    lifecycle: Any = None
    livenessProbe: Any = None
    readinessProbe: Any = None
    resizePolicy: Any = None
    restartPolicy: Any = None
    securityContext: Any = None
    startupProbe: Any = None
    stdin: Any = None
    stdinOnce: Any = None
    terminationMessagePath: Any = None
    terminationMessagePolicy: Any = None
    tty: Any = None
    volumeDevices: Any = None
    workingDir: Any = None


class Volume(Strict):
    name: str
    configMap: Any = None
    csi: Any = None
    downwardAPI: Any = None
    emptyDir: Any = None
    ephemeral: Any = None
    hostPath: Any = None
    image: Any = None
    nfs: Any = None
    persistentVolumeClaim: Any = None
    projected: Any = None
    secret: Any = None


class Toleration(Strict):
    key: str | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    tolerationSeconds: int | None = None


class PodSpec(Strict):
    containers: list[Container] = Field(min_length=1)
    initContainers: list[Container] = Field(default_factory=list)
    volumes: list[Volume] = Field(default_factory=list)
    nodeSelector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[Toleration] = Field(default_factory=list)
    restartPolicy: Literal["Always", "OnFailure", "Never"] | None = None
    serviceAccountName: str | None = None
    terminationGracePeriodSeconds: int | None = Field(None, ge=0)
    activeDeadlineSeconds: Any = None
    affinity: Any = None
    automountServiceAccountToken: Any = None
    dnsConfig: Any = None
    dnsPolicy: Any = None
    enableServiceLinks: Any = None
    hostAliases: Any = None
    hostIPC: Any = None
    hostNetwork: Any = None
    hostPID: Any = None
    hostUsers: Any = None
    hostname: Any = None
    imagePullSecrets: Any = None
    nodeName: Any = None
    os: Any = None
    overhead: Any = None
    preemptionPolicy: Any = None
    priority: Any = None
    priorityClassName: Any = None
    readinessGates: Any = None
    resourceClaims: Any = None
    resources: Any = None
    runtimeClassName: Any = None
    schedulerName: Any = None
    schedulingGates: Any = None
    securityContext: Any = None
    setHostnameAsFQDN: Any = None
    shareProcessNamespace: Any = None
    subdomain: Any = None
    topologySpreadConstraints: Any = None


class PodTemplate(Strict):
    metadata: Metadata = Field(default_factory=Metadata)
    spec: PodSpec


def misfits(template: PodTemplate, at: str) -> Iterator[Problem]:
    """Mounts of volumes that the pod does not have. at: path of the template."""
    volumes = {volume.name for volume in template.spec.volumes}
    for kind in ("initContainers", "containers"):
        for i, container in enumerate(getattr(template.spec, kind)):
            for j, mount in enumerate(container.volumeMounts):
                if mount.name not in volumes:
                    hint = suggestion(mount.name, volumes, label="Volumes")
                    yield Problem(f"{at}.spec.{kind}.{i}.volumeMounts.{j}.name", f"no volume {mount.name!r}. {hint}")
