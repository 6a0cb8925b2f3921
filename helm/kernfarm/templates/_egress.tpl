{{/* Whom pods may call: egress rules of NetworkPolicies. A rule without addresses would let out everywhere, so it has to be left out. */}}

{{/* The port of an http:// or https:// address. */}}
{{- define "kernfarm.urlPort" -}}
{{- default (ternary "80" "443" (hasPrefix "http://" .)) (regexFind ":[0-9]+$" (urlParse .).host | trimPrefix ":") -}}
{{- end }}

{{- define "kernfarm.s3Egress" -}}
{{- if eq .Values.blobs.kind "s3" }}
- to:
    {{- range .Values.networkPolicy.s3Cidrs }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  ports:
    {{- range .Values.networkPolicy.s3Ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- end }}

{{/* Where the coordinator asks for the keys of the identity provider; empty: nowhere. */}}
{{- define "kernfarm.oidcUrl" -}}
{{- with .Values.access.oidc -}}
{{- if not .jwksConfigMap }}{{ default .issuer .jwksUrl }}{{ end -}}
{{- end -}}
{{- end }}

{{/* What the coordinator reaches beside Ray; empty when journal and blobs are volumes and no identity provider is asked. */}}
{{- define "kernfarm.coordinatorEgress" -}}
{{- $policy := .Values.networkPolicy -}}
{{- if eq .Values.journal.kind "postgresql" }}
- to:
    {{- range $policy.postgresqlCidrs }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  ports:
    - {port: {{ .Values.journal.postgresql.port }}, protocol: TCP}
{{- end }}
{{- with include "kernfarm.oidcUrl" . }}
- to:
    {{- range $policy.oidcCidrs }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  ports:
    - {port: {{ include "kernfarm.urlPort" . }}, protocol: TCP}
{{- end }}
{{- include "kernfarm.s3Egress" . }}
{{- end }}

{{/* The bits of an IP address as text, "0110...": 32 or 128. */}}
{{- define "kernfarm.addressBits" -}}
{{- if contains ":" . -}}
{{- $ends := splitList "::" . -}}
{{- $first := compact (splitList ":" (index $ends 0)) -}}
{{- $last := compact (splitList ":" (index $ends (sub (len $ends) 1 | int))) -}}
{{- if eq (len $ends) 1 }}{{ $last = list }}{{ end -}}
{{- range $first }}{{ printf "%016b" (int64 (printf "0x%s" .)) }}{{ end -}}
{{- repeat (sub 128 (mul 16 (add (len $first) (len $last))) | int) "0" -}}
{{- range $last }}{{ printf "%016b" (int64 (printf "0x%s" .)) }}{{ end -}}
{{- else -}}
{{- range splitList "." . }}{{ printf "%08b" (int64 .) }}{{ end -}}
{{- end -}}
{{- end }}

{{/* within: (list RANGE EXCEPTION); the exception when it lies within the range, and is smaller: Kubernetes refuses any other one. */}}
{{- define "kernfarm.within" -}}
{{- $range := splitList "/" (index . 0) -}}
{{- $exception := splitList "/" (index . 1) -}}
{{- $bits := include "kernfarm.addressBits" (index $range 0) -}}
{{- $others := include "kernfarm.addressBits" (index $exception 0) -}}
{{- $fixed := index $range 1 | int -}}
{{- if and (eq (len $bits) (len $others)) (gt (index $exception 1 | int) $fixed) (eq (trunc $fixed $bits) (trunc $fixed $others)) -}}
{{ index . 1 }}
{{- end -}}
{{- end }}

{{/* What a worker reaches beside Ray; empty when neither sources nor a bucket are to be reached. */}}
{{- define "kernfarm.workerEgress" -}}
{{- $sources := .Values.networkPolicy.sources -}}
{{- if $sources.cidrs }}
- to:
    {{- range $range := $sources.cidrs }}
    - ipBlock:
        cidr: {{ $range | quote }}
        {{- $except := list }}
        {{- range $sources.except }}
        {{- with include "kernfarm.within" (list $range .) }}{{ $except = append $except . }}{{ end }}
        {{- end }}
        {{- with $except }}
        except: {{ . | toJson }}
        {{- end }}
    {{- end }}
  ports:
    {{- range $sources.ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- include "kernfarm.s3Egress" . }}
{{- end }}
