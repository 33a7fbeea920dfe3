{{/* Name of the chart, as a label. */}}
{{- define "stream-cluster.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Name of every object. 47 characters leave room for what is added to it. */}}
{{- define "stream-cluster.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 47 | trimSuffix "-" }}
{{- else if contains (include "stream-cluster.name" .) .Release.Name }}
{{- .Release.Name | trunc 47 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "stream-cluster.name" .) | trunc 47 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Labels that never change: selectors are made of them. */}}
{{- define "stream-cluster.selector" -}}
app.kubernetes.io/name: {{ include "stream-cluster.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "stream-cluster.workerSelector" -}}
{{ include "stream-cluster.selector" . }}
app.kubernetes.io/component: worker
{{- end }}

{{- define "stream-cluster.labels" -}}
{{ include "stream-cluster.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "stream-cluster.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{- define "stream-cluster.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "stream-cluster.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "stream-cluster.port" -}}
{{- dig "http" "port" 8080 .Values.config | int }}
{{- end }}

{{/* Security of every pod: that of the restricted Pod Security Standard. */}}
{{- define "stream-cluster.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "stream-cluster.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
capabilities:
  drop: [ALL]
{{- end }}

{{/* Environment and mounts that every container needs which reads the settings. */}}
{{- define "stream-cluster.configEnv" -}}
- name: STREAM_CLUSTER_CONFIG
  value: /etc/stream-cluster/config/stream-cluster.yaml
{{- end }}

{{- define "stream-cluster.configMounts" -}}
- name: config
  mountPath: /etc/stream-cluster/config
  readOnly: true
{{- range .Values.secrets }}
- name: secret-{{ .name }}
  mountPath: /etc/stream-cluster/secrets/{{ .name }}
  readOnly: true
{{- end }}
- name: tmp
  mountPath: /tmp
{{- end }}

{{- define "stream-cluster.configVolumes" -}}
- name: config
  configMap:
    name: {{ include "stream-cluster.fullname" . }}
{{- range .Values.secrets }}
- name: secret-{{ .name }}
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    optional: {{ .optional | default false }}
{{- end }}
- name: tmp
  emptyDir:
    sizeLimit: 1Gi
{{- end }}
