{{/* There can be one agent a node and so one release a cluster: the names do not vary. */}}
{{- define "enforcer.labels" -}}
{{ include "enforcer.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "enforcer.selector" -}}
app.kubernetes.io/name: enforcer
{{- end }}

{{- define "enforcer.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Port of the metrics. */}}
{{- define "enforcer.metricsPort" -}}
{{ regexFind "[0-9]+$" .Values.metricsAddress }}
{{- end }}

{{/* Address at which the node itself reaches the metrics. */}}
{{- define "enforcer.metricsHost" -}}
{{- $host := regexReplaceAll ":[0-9]+$" .Values.metricsAddress "" | trimPrefix "[" | trimSuffix "]" -}}
{{- if eq $host "0.0.0.0" -}}
127.0.0.1
{{- else if eq $host "::" -}}
::1
{{- else -}}
{{ $host }}
{{- end -}}
{{- end }}

{{/* What the agent's pods and those that remove it have in common. */}}
{{- define "enforcer.podCommon" -}}
# Interfaces of pods are seen, and programs attached, in the node's network namespace.
hostNetwork: true
# The agent asks for no names of the cluster; the node's resolver needs nothing that runs in it.
dnsPolicy: Default
enableServiceLinks: false
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsUser: 0
  runAsGroup: 0
  seccompProfile:
    type: RuntimeDefault
  {{- with .Values.seLinuxType }}
  seLinuxOptions:
    type: {{ . }}
  {{- end }}
  {{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version }}
  appArmorProfile:
    type: {{ .Values.appArmorProfile }}
  {{- end }}
{{- end }}

{{/* AppArmor before it had a field, Kubernetes 1.29 and older. */}}
{{- define "enforcer.appArmorAnnotations" -}}
{{- if not (semverCompare ">=1.30.0-0" .root.Capabilities.KubeVersion.Version) }}
{{- $profile := eq .root.Values.appArmorProfile "Unconfined" | ternary "unconfined" "runtime/default" }}
{{- range .containers }}
container.apparmor.security.beta.kubernetes.io/{{ . }}: {{ $profile }}
{{- end }}
{{- end }}
{{- end }}

{{/* Root of the container only: no way to more rights than these three. */}}
{{- define "enforcer.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  # Load programs and make maps; read kernel memory from programs; attach, and ask netlink.
  add: [BPF, PERFMON, NET_ADMIN]
{{- end }}

{{/* Not empty if flows are served with certificates. */}}
{{- define "enforcer.hubbleTls" -}}
{{- with .Values.hubble }}{{ if and .listenAddress .tlsSecret (not .insecure) }}yes{{ end }}{{ end }}
{{- end }}

{{/* The port that relays find in the Service. */}}
{{- define "enforcer.hubblePort" -}}
{{- regexReplaceAll "^.*:" .Values.hubble.listenAddress "" -}}
{{- end }}
