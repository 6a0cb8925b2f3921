{{/* Containers of the coordinator's pod. */}}

{{/* Folders of the blob store are made beforehand, writable by the group that all its users have: a folder that one of them made by itself
would be closed to the others. */}}
{{- define "kernfarm.coordinator.store" -}}
- name: store
  image: {{ include "kernfarm.image" (list . "coordinator") }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [kernfarm-layout, /var/lib/kernfarm/blobs]
  securityContext:
    runAsUser: {{ include "kernfarm.uid.coordinator" . }}
    runAsGroup: {{ include "kernfarm.gid" . }}
    {{- include "kernfarm.confined" . | nindent 4 }}
  resources:
    requests: {cpu: 50m, memory: 32Mi}
    limits: {memory: 64Mi}
  volumeMounts:
    - name: blobs
      mountPath: /var/lib/kernfarm/blobs
{{- end }}

{{/* The signer takes its key only from a file of its own that nobody else can read; a mounted Secret belongs to root. */}}
{{- define "kernfarm.signer.key" -}}
- name: signer-key
  image: {{ include "kernfarm.image" (list . "coordinator") }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command:
    - /bin/sh
    - -ec
    - |
      umask 0077
      for file in /etc/kernfarm/signer-key/*; do cat "$file" >"/run/kernfarm-key/${file##*/}"; done
  securityContext:
    runAsUser: {{ include "kernfarm.uid.signer" . }}
    runAsGroup: {{ include "kernfarm.gid" . }}
    {{- include "kernfarm.confined" . | nindent 4 }}
  resources:
    requests: {cpu: 50m, memory: 32Mi}
    limits: {memory: 64Mi}
  volumeMounts:
    - name: signer-secret
      mountPath: /etc/kernfarm/signer-key
      readOnly: true
    - name: signer-key
      mountPath: /run/kernfarm-key
{{- end }}

{{- define "kernfarm.signer" -}}
- name: signer
  image: {{ include "kernfarm.image" (list . "coordinator") }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  # Runs beside the coordinator, and before it.
  restartPolicy: Always
  command: [python, -m, coordinator.signer, --config, /etc/kernfarm/signer/signer.yaml]
  env:
    - name: HOME
      value: /tmp
    {{- include "kernfarm.blobEnv" . | nindent 4 }}
    {{- include "kernfarm.postgresEnv" (list . .Values.journal.postgresql.signerCredentialsSecret) | nindent 4 }}
  startupProbe:
    exec:
      command: [test, -S, /run/kernfarm/signer.sock]
    periodSeconds: 1
    failureThreshold: 60
  securityContext:
    # A user of its own: the coordinator can't read its memory or its files.
    runAsUser: {{ include "kernfarm.uid.signer" . }}
    runAsGroup: {{ include "kernfarm.gid" . }}
    {{- include "kernfarm.confined" . | nindent 4 }}
  resources:
    {{- toYaml .Values.signer.resources | nindent 4 }}
  volumeMounts:
    - name: signer-config
      mountPath: /etc/kernfarm/signer
      readOnly: true
    - name: signer-key
      mountPath: /run/kernfarm-key
    - name: sockets
      mountPath: /run/kernfarm
    - name: signer-tmp
      mountPath: /tmp
    {{- if eq .Values.journal.kind "sqlite" }}
    - name: state
      mountPath: /var/lib/kernfarm/coordinator
      readOnly: true
    {{- end }}
    {{- if and (eq .Values.journal.kind "postgresql") .Values.journal.postgresql.caSecret }}
    - name: postgresql-ca
      mountPath: /etc/kernfarm/postgresql
      readOnly: true
    {{- end }}
    {{- include "kernfarm.blobMount" . | nindent 4 }}
{{- end }}

{{/* Ray's drivers need a node of their own machine: this one takes part in the cluster for the coordinator, and offers nothing. */}}
{{- define "kernfarm.coordinator.ray" -}}
- name: ray
  image: {{ include "kernfarm.image" (list . "coordinator") }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  restartPolicy: Always
  command:
    - ray
    - start
    - --block
    - --address={{ include "kernfarm.rayHead" . }}
    - --node-ip-address=$(POD_IP)
    - --num-cpus=0
    {{- range $name, $value := include "kernfarm.rayPorts" . | fromYaml }}
    - --{{ $name }}={{ $value }}
    {{- end }}
  env:
    - name: POD_IP
      valueFrom: {fieldRef: {fieldPath: status.podIP}}
    {{- include "kernfarm.rayEnv" . | nindent 4 }}
  startupProbe:
    tcpSocket: {port: 6380}
    periodSeconds: 2
    failureThreshold: 90
  livenessProbe:
    tcpSocket: {port: 6380}
    periodSeconds: 10
    failureThreshold: 3
  securityContext:
    # The coordinator's user: they share sockets and memory.
    runAsUser: {{ include "kernfarm.uid.coordinator" . }}
    runAsGroup: {{ include "kernfarm.gid" . }}
    {{- include "kernfarm.confined" . | nindent 4 }}
  resources:
    {{- toYaml .Values.ray.driver.resources | nindent 4 }}
  volumeMounts:
    - name: ray-tmp
      mountPath: /tmp
    - name: ray-memory
      mountPath: /dev/shm
{{- end }}

{{- define "kernfarm.coordinator" -}}
- name: coordinator
  image: {{ include "kernfarm.image" (list . "coordinator") }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [python, -m, coordinator, --config, /etc/kernfarm/coordinator/coordinator.yaml]
  env:
    - name: HOME
      value: /tmp
    - name: GRPC_ENABLE_FORK_SUPPORT
      value: "0"
    # Ray looks for its mode when it is loaded, before the settings are read; the token itself is in the settings' ray_token_file.
    - name: RAY_AUTH_MODE
      value: token
    {{- include "kernfarm.blobEnv" . | nindent 4 }}
    {{- include "kernfarm.postgresEnv" (list . .Values.journal.postgresql.credentialsSecret) | nindent 4 }}
  ports:
    - name: grpc
      containerPort: {{ .Values.coordinator.port }}
    {{- if .Values.metrics.enabled }}
    - name: metrics
      containerPort: {{ .Values.metrics.port }}
    {{- end }}
  # A long journal takes its time to replay.
  startupProbe:
    {{- include "kernfarm.coordinator.probe" . | nindent 4 }}
    periodSeconds: 5
    timeoutSeconds: 10
    failureThreshold: 120
  readinessProbe:
    {{- include "kernfarm.coordinator.probe" . | nindent 4 }}
    periodSeconds: 15
    timeoutSeconds: 10
  livenessProbe:
    {{- include "kernfarm.coordinator.probe" . | nindent 4 }}
    periodSeconds: 30
    timeoutSeconds: 10
    failureThreshold: 4
  securityContext:
    runAsUser: {{ include "kernfarm.uid.coordinator" . }}
    runAsGroup: {{ include "kernfarm.gid" . }}
    {{- include "kernfarm.confined" . | nindent 4 }}
  resources:
    {{- toYaml .Values.coordinator.resources | nindent 4 }}
  volumeMounts:
    - name: config
      mountPath: /etc/kernfarm/coordinator
      readOnly: true
    - name: ray-token
      mountPath: /etc/kernfarm/ray
      readOnly: true
    - name: tls
      mountPath: /etc/kernfarm/tls
      readOnly: true
    {{- if .Values.access.tls.clientCaSecret }}
    - name: client-ca
      mountPath: /etc/kernfarm/client-ca
      readOnly: true
    {{- end }}
    {{- if .Values.access.tokensSecret }}
    - name: tokens
      mountPath: /etc/kernfarm/tokens
      readOnly: true
    {{- end }}
    {{- if .Values.access.oidc.jwksConfigMap }}
    - name: oidc
      mountPath: /etc/kernfarm/oidc
      readOnly: true
    {{- end }}
    {{- if and (eq .Values.journal.kind "postgresql") .Values.journal.postgresql.caSecret }}
    - name: postgresql-ca
      mountPath: /etc/kernfarm/postgresql
      readOnly: true
    {{- end }}
    {{- if .Values.signer.enabled }}
    - name: sockets
      mountPath: /run/kernfarm
      readOnly: true
    {{- end }}
    - name: state
      mountPath: /var/lib/kernfarm/coordinator
    - name: ray-tmp
      mountPath: /tmp
    - name: ray-memory
      mountPath: /dev/shm
    {{- include "kernfarm.blobMount" . | nindent 4 }}
{{- end }}

{{/* The kubelet's own gRPC probe knows no TLS, so ours asks. With mTLS it would need a certificate of a client's: then only the port is tried.
`exec` in both cases, not `tcpSocket`: an upgrade that changes the handler's kind and fails can leave both, which Kubernetes then refuses. */}}
{{- define "kernfarm.coordinator.probe" -}}
exec:
  {{- if .Values.access.tls.clientCaSecret }}
  command: {{ include "kernfarm.connect" (list "127.0.0.1" .Values.coordinator.port) }}
  {{- else }}
  command:
    - python
    - -m
    - kernfarm.health
    - --authority=/etc/kernfarm/tls/ca.crt
    - --authority=/etc/kernfarm/tls/tls.crt
    - --name={{ default (printf "%s-coordinator" (include "kernfarm.fullname" .)) .Values.access.tls.serverName }}
    - 127.0.0.1:{{ .Values.coordinator.port }}
  {{- end }}
{{- end }}

{{/* connect: (list HOST PORT); the command that tries whether a port answers. */}}
{{- define "kernfarm.connect" -}}
{{- list "python" "-c" "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)" (index . 0) (index . 1 | toString) | toJson -}}
{{- end }}

{{- define "kernfarm.coordinator.volumes" -}}
- name: config
  configMap:
    name: {{ include "kernfarm.fullname" . }}-coordinator
- name: ray-token
  secret:
    secretName: {{ .Values.ray.tokenSecret | quote }}
    defaultMode: 0440
    items:
      - {key: token, path: token}
- name: tls
  secret:
    secretName: {{ .Values.access.tls.secret | quote }}
    defaultMode: 0440
{{- if .Values.access.tls.clientCaSecret }}
- name: client-ca
  secret:
    secretName: {{ .Values.access.tls.clientCaSecret | quote }}
    defaultMode: 0440
    items:
      - {key: ca.crt, path: ca.crt}
{{- end }}
{{- if .Values.access.tokensSecret }}
- name: tokens
  secret:
    secretName: {{ .Values.access.tokensSecret | quote }}
    defaultMode: 0440
    items:
      - {key: tokens.yaml, path: tokens.yaml}
{{- end }}
{{- with .Values.access.oidc.jwksConfigMap }}
- name: oidc
  configMap:
    name: {{ . | quote }}
    items:
      - {key: jwks.json, path: jwks.json}
{{- end }}
{{- if and (eq .Values.journal.kind "postgresql") .Values.journal.postgresql.caSecret }}
- name: postgresql-ca
  secret:
    secretName: {{ .Values.journal.postgresql.caSecret | quote }}
    defaultMode: 0440
    items:
      - {key: ca.crt, path: ca.crt}
{{- end }}
{{- if .Values.signer.enabled }}
- name: signer-config
  configMap:
    name: {{ include "kernfarm.fullname" . }}-signer
- name: signer-secret
  secret:
    secretName: {{ .Values.signer.keySecret | quote }}
    defaultMode: 0440
    items:
      - {key: signer.key, path: signer.key}
      {{- if .Values.signer.sealed }}
      - {key: password, path: password}
      {{- end }}
- name: signer-key
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
- name: sockets
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
- name: signer-tmp
  emptyDir: {sizeLimit: 8Gi}
{{- end }}
- name: state
  persistentVolumeClaim:
    claimName: {{ default (printf "%s-coordinator" (include "kernfarm.fullname" .)) .Values.coordinator.state.existingClaim | quote }}
- name: ray-tmp
  emptyDir: {sizeLimit: 8Gi}
- name: ray-memory
  emptyDir: {medium: Memory, sizeLimit: 256Mi}
{{ include "kernfarm.blobVolume" . }}
{{- end }}
