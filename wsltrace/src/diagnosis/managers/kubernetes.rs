//! Rules of Kubernetes.

use crate::diagnosis::remedy::Obstacle;

/// What is to be looked at where Kubernetes made the rule: it makes its rules anew again and again, and an exception would pass what its
/// services and network policies say.
pub(super) fn mend(obstacle: &Obstacle<'_>) -> Option<Vec<String>> {
    let rule = obstacle.rule;
    let [text, comment] = [&rule.text, &rule.comment].map(|said| said.as_deref().unwrap_or_default());
    let says = |what: &str| text.contains(what) || comment.contains(what);
    let (what, look) = if says("has no endpoints") || rule.table == "kube-proxy" && rule.chain.contains("reject") {
        ("refuses for a service that no pod is ready for: start its pods, and see that the selector fits", SERVICES)
    } else if says("has no local endpoints") {
        (
            "drops for a service that has no pod on this machine (externalTrafficPolicy: Local): start one here, or set it to Cluster",
            SERVICES,
        )
    } else if ["KUBE-POD-FW", "KUBE-NWPLCY", "cali-", "CILIUM_"].iter().any(|chain| rule.chain.starts_with(chain)) {
        (
            "lets through what its network policies allow, and this is none of it",
            "kubectl get networkpolicies,pods -o wide --all-namespaces",
        )
    } else if rule.chain == "KUBE-FIREWALL" || rule.table == "kube-proxy" {
        ("guards this machine's own addresses, or drops what it marked; ask for what a service publishes", SERVICES)
    } else {
        return None;
    };
    Some(vec![format!("# Kubernetes {what}:"), look.to_owned()])
}

/// The services, and who serves them.
const SERVICES: &str = "kubectl get pods,services,endpointslices --all-namespaces";
