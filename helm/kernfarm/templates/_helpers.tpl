{{/* KubeRay makes names of up to 20 more characters out of it. */}}
{{- define "kernfarm.fullname" -}}
{{- default (printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-") .Values.fullnameOverride -}}
{{- end }}

{{- define "kernfarm.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "kernfarm.labels" -}}
{{ include "kernfarm.selector" . }}
{{- /* A label takes no "+", which a version may have. */}}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "_" | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end }}

{{/* image: (list context "coordinator") */}}
{{- define "kernfarm.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.image (index . 1) -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $image.repository $image.digest | quote }}
{{- else -}}
{{ printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) | quote }}
{{- end -}}
{{- end }}

{{- define "kernfarm.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Users of the coordinator's pod. The group owns what they share: the journal's volume and the blob store. */}}
{{- define "kernfarm.uid.coordinator" -}}10001{{- end }}
{{- define "kernfarm.uid.signer" -}}10002{{- end }}
{{- define "kernfarm.uid.head" -}}10003{{- end }}
{{- define "kernfarm.gid" -}}10000{{- end }}

{{/* A container without any privilege. Its user is set beside it. */}}
{{- define "kernfarm.confined" -}}
runAsNonRoot: true
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* The worker starts as root of its user namespace: build steps get another user than the worker's own files and credentials. These
capabilities are what that takes: to become that user (SETUID, SETGID), to hand folders over and clean up after it (the others). */}}
{{- define "kernfarm.worker.capabilities" -}}
drop: [ALL]
add: [CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID]
{{- end }}

{{- define "kernfarm.worker.security" -}}
runAsUser: 0
runAsGroup: 0
readOnlyRootFilesystem: true
{{- if eq .Values.sandbox.mode "privileged" }}
# Chosen by sandbox.mode: bubblewrap makes namespaces and mounts, and this cluster has no user namespaces for pods.
privileged: true
{{- else }}
allowPrivilegeEscalation: false
# bubblewrap mounts a new /proc; the kernel allows that only where the old one is seen as a whole.
procMount: Unmasked
capabilities:
  {{- include "kernfarm.worker.capabilities" . | nindent 2 }}
# The runtimes' default profiles forbid unshare, mount and pivot_root, which are what the sandbox is made of.
seccompProfile:
  type: Unconfined
appArmorProfile:
  type: Unconfined
{{- end }}
{{- end }}

{{- define "kernfarm.journalUrl" -}}
{{- if eq .Values.journal.kind "postgresql" -}}
{{- /* User and password come from the environment (PGUSER, PGPASSWORD): libpq fills in what the address leaves out. */ -}}
{{- with .Values.journal.postgresql -}}
{{- /* The public authorities by the image's file: libpq's word "system" means a folder that only its own packagers have. */ -}}
{{- $authorities := ternary "/etc/kernfarm/postgresql/ca.crt" "/etc/ssl/certs/ca-certificates.crt" (ne .caSecret "") -}}
postgresql+psycopg://{{ .host }}:{{ .port }}/{{ .database }}?sslmode={{ .sslMode }}{{ if or .caSecret (ne .sslMode "require") }}&sslrootcert={{ $authorities }}{{ end }}
{{- end -}}
{{- else -}}
sqlite:////var/lib/kernfarm/coordinator/journal.sqlite
{{- end -}}
{{- end }}

{{/* Settings blobs_url and blobs_options: coordinator, signer and workers must agree. */}}
{{- define "kernfarm.blobSettings" -}}
{{- if eq .Values.blobs.kind "s3" }}
blobs_url: {{ printf "s3://%s/%s" .Values.blobs.s3.bucket .Values.blobs.s3.prefix | quote }}
blobs_options:
  region: {{ .Values.blobs.s3.region | quote }}
  {{- with .Values.blobs.s3.endpoint }}
  endpoint: {{ . | quote }}
  {{- end }}
  allow_http: {{ .Values.blobs.s3.allowHttp | quote }}
{{- else }}
blobs_url: file:///var/lib/kernfarm/blobs
{{- end }}
{{- end }}

{{- define "kernfarm.blobEnv" -}}
{{- if and (eq .Values.blobs.kind "s3") .Values.blobs.s3.credentialsSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ .Values.blobs.s3.credentialsSecret | quote }}, key: access-key-id}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ .Values.blobs.s3.credentialsSecret | quote }}, key: secret-access-key}}
{{- end }}
{{- end }}

{{/* postgresEnv: (list context NAME-OF-SECRET) */}}
{{- define "kernfarm.postgresEnv" -}}
{{- $root := index . 0 -}}
{{- if eq $root.Values.journal.kind "postgresql" }}
- name: PGUSER
  valueFrom: {secretKeyRef: {name: {{ index . 1 | quote }}, key: username}}
- name: PGPASSWORD
  valueFrom: {secretKeyRef: {name: {{ index . 1 | quote }}, key: password}}
{{- end }}
{{- end }}

{{- define "kernfarm.blobMount" -}}
{{- if eq .Values.blobs.kind "volume" }}
- name: blobs
  mountPath: /var/lib/kernfarm/blobs
{{- end }}
{{- end }}

{{- define "kernfarm.blobVolume" -}}
{{- if eq .Values.blobs.kind "volume" }}
- name: blobs
  persistentVolumeClaim:
    claimName: {{ default (printf "%s-blobs" (include "kernfarm.fullname" .)) .Values.blobs.volume.existingClaim | quote }}
{{- end }}
{{- end }}

{{/* Environment of every Ray process. The token is asked for by name, so that no program makes up another one. */}}
{{- define "kernfarm.rayEnv" -}}
- name: RAY_AUTH_MODE
  value: token
- name: RAY_AUTH_TOKEN
  valueFrom: {secretKeyRef: {name: {{ .Values.ray.tokenSecret | quote }}, key: token}}
- name: RAY_USAGE_STATS_ENABLED
  value: "0"
- name: GRPC_ENABLE_FORK_SUPPORT
  value: "0"
- name: HOME
  value: /tmp
{{- end }}

{{/* Fixed ports of a Ray node, so that NetworkPolicies can name them. */}}
{{- define "kernfarm.rayPorts" -}}
node-manager-port: "6380"
object-manager-port: "6381"
runtime-env-agent-port: "6382"
dashboard-agent-grpc-port: "6383"
dashboard-agent-listen-port: "6384"
metrics-export-port: "6385"
min-worker-port: "10002"
max-worker-port: "10999"
# Only control messages go through Ray's object store.
object-store-memory: "80000000"
{{- end }}

{{- define "kernfarm.raySystemConfig" -}}
{{- $health := .Values.ray.health -}}
{{- dict "health_check_initial_delay_ms" (int $health.periodMs) "health_check_period_ms" (int $health.periodMs) "health_check_timeout_ms" (int $health.timeoutMs) "health_check_failure_threshold" (int $health.failures) | toJson -}}
{{- end }}

{{- define "kernfarm.rayHead" -}}
{{ include "kernfarm.fullname" . }}-head-svc:6379
{{- end }}

{{/* Enabled worker groups, as JSON: names to groups. */}}
{{- define "kernfarm.groups" -}}
{{- $found := dict -}}
{{- range $name, $group := .Values.workerGroups -}}
{{- if $group.enabled }}{{ $_ := set $found $name $group }}{{ end -}}
{{- end -}}
{{- $found | toJson -}}
{{- end }}

{{/* A quantity, of bytes or processors, as a number. */}}
{{- define "kernfarm.quantity" -}}
{{- $number := regexFind "^[0-9.]+" . -}}
{{- $units := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 -}}
{{- mulf (float64 $number) (index $units (trimPrefix $number .)) | printf "%.3f" -}}
{{- end }}

{{/* Resources of containers that the values set, as JSON: names of values to resources. */}}
{{- define "kernfarm.resources" -}}
{{- $v := .Values -}}
{{- $found := dict "coordinator.resources" $v.coordinator.resources "ray.head.resources" $v.ray.head.resources "ray.driver.resources" $v.ray.driver.resources "signer.resources" $v.signer.resources -}}
{{- range $name, $group := include "kernfarm.groups" . | fromJson -}}
{{- $_ := set $found (printf "workerGroups.%s.resources" $name) $group.resources -}}
{{- end -}}
{{- $found | toJson -}}
{{- end }}
