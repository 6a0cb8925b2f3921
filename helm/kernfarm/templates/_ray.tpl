{{/* Pods of the Ray cluster. KubeRay adds the command `ray start ...` to the first container. */}}

{{- define "kernfarm.head" -}}
serviceAccountName: {{ printf "%s%s" (include "kernfarm.fullname" .) (ternary "-head" "" .Values.ray.autoscaling.enabled) | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- include "kernfarm.pullSecrets" . }}
securityContext:
  runAsNonRoot: true
  fsGroup: {{ include "kernfarm.gid" . }}
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.ray.head.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.ray.head.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: ray-head
    image: {{ include "kernfarm.image" (list . "coordinator") }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    env:
      {{- include "kernfarm.rayEnv" . | nindent 6 }}
    ports:
      - {name: gcs, containerPort: 6379}
    # KubeRay's own probes ask the dashboard's agent by wget; a farm has neither.
    readinessProbe:
      grpc: {port: 6379}
      periodSeconds: 5
      timeoutSeconds: 5
    livenessProbe:
      grpc: {port: 6379}
      initialDelaySeconds: 30
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    securityContext:
      runAsUser: {{ include "kernfarm.uid.head" . }}
      runAsGroup: {{ include "kernfarm.gid" . }}
      {{- include "kernfarm.confined" . | nindent 6 }}
    resources:
      {{- toYaml .Values.ray.head.resources | nindent 6 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 8Gi}
  {{- if .Values.ray.autoscaling.enabled }}
  # Mounted by the autoscaler's container alone (autoscalerOptions): what Kubernetes would mount into all of the pod's.
  - name: kubernetes-api
    projected:
      defaultMode: 0440
      sources:
        - serviceAccountToken: {path: token, expirationSeconds: 3607}
        - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
  {{- end }}
{{- end }}

{{/* worker: a dict of root, name, group */}}
{{- define "kernfarm.worker" -}}
{{- $root := .root -}}
{{- $group := .group -}}
serviceAccountName: {{ include "kernfarm.fullname" $root | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- if eq $root.Values.sandbox.mode "userNamespace" }}
hostUsers: false
{{- end }}
{{- include "kernfarm.pullSecrets" $root }}
securityContext:
  fsGroup: {{ include "kernfarm.gid" $root }}
  fsGroupChangePolicy: OnRootMismatch
nodeSelector:
  kubernetes.io/arch: {{ $group.arch }}
  {{- with $group.nodeSelector }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $group.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $group.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $group.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
# The coordinator moves lost attempts to other workers; an attempt is not worth waiting for.
terminationGracePeriodSeconds: 30
initContainers:
  - name: prepare
    image: {{ include "kernfarm.image" (list $root "worker") }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    command:
      - kernfarm-prepare-worker
      - /etc/kernfarm/template/worker.yaml
      - /etc/kernfarm/worker/worker.yaml
      - $(POD_NAME)
      {{- if $root.Values.sources.refreshApt }}
      - --refresh-apt
      {{- end }}
    env:
      - name: POD_NAME
        valueFrom: {fieldRef: {fieldPath: metadata.name}}
    securityContext:
      runAsUser: 0
      runAsGroup: 0
      readOnlyRootFilesystem: true
      allowPrivilegeEscalation: false
      capabilities:
        drop: [ALL]
        # apt keeps its lists as root, in a volume that may belong to another user.
        add: [CHOWN, DAC_OVERRIDE, FOWNER]
      seccompProfile:
        type: RuntimeDefault
    resources:
      requests: {cpu: 100m, memory: 128Mi}
      limits: {memory: 512Mi}
    volumeMounts:
      - {name: config-template, mountPath: /etc/kernfarm/template, readOnly: true}
      - {name: config, mountPath: /etc/kernfarm/worker}
      - {name: apt-lists, mountPath: /var/lib/apt/lists}
      - {name: apt-cache, mountPath: /var/cache/apt}
      - {name: tmp, mountPath: /tmp}
containers:
  - name: ray-worker
    image: {{ include "kernfarm.image" (list $root "worker") }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    env:
      {{- include "kernfarm.rayEnv" $root | nindent 6 }}
      # The worker's processes are started by Ray, which hands its environment on.
      - name: KERNFARM_WORKER_CONFIG
        value: /etc/kernfarm/worker/worker.yaml
      {{- include "kernfarm.blobEnv" $root | nindent 6 }}
    readinessProbe:
      tcpSocket: {port: 6380}
      periodSeconds: 5
    livenessProbe:
      tcpSocket: {port: 6380}
      initialDelaySeconds: 30
      periodSeconds: 10
      failureThreshold: 6
    securityContext:
      {{- include "kernfarm.worker.security" $root | nindent 6 }}
    resources:
      {{- toYaml $group.resources | nindent 6 }}
    volumeMounts:
      - {name: config, mountPath: /etc/kernfarm/worker, readOnly: true}
      - {name: apt-lists, mountPath: /var/lib/apt/lists}
      - {name: apt-cache, mountPath: /var/cache/apt}
      - {name: tmp, mountPath: /tmp}
      - {name: scratch, mountPath: /var/lib/kernfarm/worker}
      {{- if $root.Values.sources.keyringConfigMap }}
      - {name: keyring, mountPath: /etc/kernfarm/keyring, readOnly: true}
      {{- end }}
      {{- include "kernfarm.blobMount" $root | nindent 6 }}
  {{- if $root.Values.metrics.enabled }}
  - name: exporter
    image: {{ include "kernfarm.image" (list $root "worker") }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    command: [python, -m, worker.exporter, --config, /etc/kernfarm/worker/worker.yaml, --listen, {{ printf "0.0.0.0:%d" (int $root.Values.metrics.exporterPort) | quote }}]
    ports:
      - name: exporter
        containerPort: {{ $root.Values.metrics.exporterPort }}
    securityContext:
      runAsUser: 10004
      runAsGroup: {{ include "kernfarm.gid" $root }}
      {{- include "kernfarm.confined" $root | nindent 6 }}
    resources:
      requests: {cpu: 20m, memory: 64Mi}
      limits: {memory: 256Mi}
    volumeMounts:
      - {name: config, mountPath: /etc/kernfarm/worker, readOnly: true}
      - {name: scratch, mountPath: /var/lib/kernfarm/worker, readOnly: true}
  {{- end }}
volumes:
  - name: config-template
    configMap:
      name: {{ include "kernfarm.fullname" $root }}-workers
      items:
        - {key: worker-{{ .name }}.yaml, path: worker.yaml}
  - name: config
    emptyDir: {sizeLimit: 1Mi}
  {{- with $root.Values.sources.keyringConfigMap }}
  - name: keyring
    configMap:
      name: {{ . | quote }}
      items:
        - {key: keyring, path: keyring}
  {{- end }}
  - name: apt-lists
    emptyDir: {sizeLimit: 1Gi}
  - name: apt-cache
    emptyDir: {sizeLimit: 2Gi}
  - name: tmp
    emptyDir: {sizeLimit: 8Gi}
  - name: scratch
    {{- if $group.scratch.storageClass }}
    ephemeral:
      volumeClaimTemplate:
        spec:
          accessModes: [ReadWriteOnce]
          storageClassName: {{ $group.scratch.storageClass | quote }}
          resources:
            requests:
              storage: {{ $group.scratch.size }}
    {{- else }}
    emptyDir: {sizeLimit: {{ $group.scratch.size }}}
    {{- end }}
  {{- include "kernfarm.blobVolume" $root | nindent 2 }}
{{- end }}
