//! What the chart says to values: wrong ones are refused with their name, right ones do what they
//! are for.

use super::{ChartError, helm::Helm};
use crate::process::ProcessError;

/// Values that must be refused, and what the refusal must name.
const REFUSED: [(&str, &str); 23] = [
    ("enforcment=audit", "enforcment"),
    ("enforcement=maybe", "enforcement"),
    ("start=opened", "start"),
    ("gate=oci", "gate"),
    ("mode=uninstall", "mode"),
    ("metricsAddress=localhost:10465", "metricsAddress"),
    ("conntrackEntries=12", "conntrackEntries"),
    ("conntrackEntries=many", "conntrackEntries"),
    ("nodePortAddresses=some", "nodePortAddresses"),
    ("cniCacheDir=var/lib/cni", "cniCacheDir"),
    ("dnsService=kube-dns", "dnsService"),
    ("image.digest=sha256:1234", "digest"),
    ("extraArgs={-x}", "extraArgs"),
    ("maxSurge=0", "maxSurge"),
    ("image.name=x", "name"),
    ("podMonitor.enabled=true", "metricsAddress"),
    ("flowMetrics={dorp}", "flowMetrics"),
    ("insights.portScan=20", "portScan"),
    ("insights.scan=0", "scan"),
    ("export.file=flows.log", "file"),
    ("grafanaDashboard.enabled=yes", "grafanaDashboard"),
    ("hubble.listenAddress=0.0.0.0:4244", "hubble.tlsSecret"),
    ("flowEvents=some", "flowEvents"),
];

/// Values with a text that must then be there.
const TAKEN: [(&str, &str); 22] = [
    ("enforcement=audit", "--enforcement=audit\n"),
    ("start=closed-except-dns", "--dns-service=kube-system/kube-dns\n"),
    ("conntrackEntries=1048576", "--conntrack-entries=1048576\n"),
    ("nodePortAddresses=all", "--nodeport-addresses=all\n"),
    ("ignoreInterfaces={lxc*,tap0}", "\"--ignore-interface=lxc*\"\n"),
    ("metricsAddress=[::]:9000", "host: \"::1\"\n              port: 9000\n"),
    ("image.tag=1.2.3", "image: \"enforcer:1.2.3\"\n"),
    ("maxSurge=10%", "maxSurge: 10%\n"),
    ("cniCacheDir=/var/lib/x/results", "path: /var/lib/x\n"),
    ("removeTaint=true", "resources: [nodes]\n    verbs: [patch]\n"),
    ("extraArgs={--node-name=x}", "- \"--node-name=x\"\n"),
    ("flowMetrics={flow,tcp:sourceContext=pod}", "\"--flow-metrics=flow tcp:sourceContext=pod\"\n"),
    ("insights.portScan=5/10", "--insight-port-scan=5/10\n"),
    ("export.file=/var/log/x/flows.log", "path: /var/log/x\n"),
    ("export.file=-,export.compress=true", "- --export-compress\n"),
    (
        "export.file=-,export.deny[0].verdict[0]=DROPPED",
        "--export-deny={\\\"verdict\\\":[\\\"DROPPED\\\"]}\"\n",
    ),
    (
        "hubble.listenAddress=[::]:4245,hubble.insecure=true",
        "\"--hubble-listen=[::]:4245\"\n            - --hubble-listen-insecure\n",
    ),
    ("flowSampling=10", "--flow-sampling=10\n"),
    ("selfCheck=10", "--self-check=10\n"),
    ("insights.metadata=false", "--insight-metadata=false\n"),
    ("prometheusRule.enabled=true", "      - alert: EnforcerAgentDown\n"),
    ("grafanaDashboard.enabled=true", "      \"uid\": \"enforcer\",\n"),
];

/// Values with a text that must then not be there.
const ABSENT: [(&str, &str); 8] = [
    ("removeTaint=false", "patch]\n  - apiGroups: [\"\"]"),
    ("cniCacheDir=", "cni"),
    ("metricsAddress=", "httpGet"),
    ("gate=none", "nri"),
    ("prometheusRule.enabled=false", "alert"),
    ("export.file=-", "name: export"),
    ("start=closed", "dns-service"),
    ("mode=remove", "serviceAccountName"),
];

/// Everything that is not so.
pub(super) fn check(helm: &Helm) -> Result<Vec<String>, ChartError> {
    let mut findings = Vec::new();
    let lint = helm.lint()?;
    if !lint.status.success() {
        findings.push(format!("helm lint: {}", String::from_utf8_lossy(&lint.stdout).trim()));
    }
    for (value, name) in REFUSED {
        let output = helm.try_template(&[value])?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() || !said.contains(name) {
            findings.push(format!("the chart must refuse {value} and name {name}: {said}"));
        }
    }
    findings.extend(texts(helm, &TAKEN, true)?);
    findings.extend(texts(helm, &ABSENT, false)?);
    Ok(findings)
}

fn texts(helm: &Helm, cases: &[(&str, &str)], wanted: bool) -> Result<Vec<String>, ProcessError> {
    let mut findings = Vec::new();
    for (value, text) in cases {
        if helm.template(&[value])?.contains(text) != wanted {
            let must = if wanted { "must" } else { "must not" };
            findings.push(format!("with {value} the chart {must} render {text:?}"));
        }
    }
    Ok(findings)
}
