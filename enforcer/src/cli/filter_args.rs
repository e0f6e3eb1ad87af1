//! Which flows `enforcer observe` shows: flags to Hubble's filters.

use clap::Args;
use enforcer_common::reason::Reason;
use enforcer_hubble::{
    flow::{DropReason, EventTypeFilter, FlowFilter, TrafficDirection, Verdict},
    near,
};

use crate::hubble::convert::{TYPE_DROP, TYPE_POLICY_VERDICT, TYPE_TRACE};

/// A flag's value that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterArgsError {
    /// None of the values that there are.
    #[error("--{flag} {value}: must be one of {names}{hint}")]
    NoneOf {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What it can be.
        names: String,
        /// What was probably meant.
        hint: String,
    },
    /// Flags that cannot be used together.
    #[error("--{any} cannot be used with --from-{any} or --to-{any}: use those two")]
    Together {
        /// The flag for either side.
        any: &'static str,
    },
}

/// Filters of `enforcer observe`. A filter given several times matches any of its values; different
/// filters must all match.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filters")]
pub struct FilterArgs {
    /// Pod on either side, by [NAMESPACE/]PREFIX
    #[arg(long, value_name = "POD", value_delimiter = ',')]
    pod: Vec<String>,
    /// Pod that sends
    #[arg(long, value_name = "POD", value_delimiter = ',')]
    from_pod: Vec<String>,
    /// Pod that receives
    #[arg(long, value_name = "POD", value_delimiter = ',')]
    to_pod: Vec<String>,
    /// Namespace on either side
    #[arg(short, long, value_name = "NS", value_delimiter = ',')]
    namespace: Vec<String>,
    /// Namespace of the sender
    #[arg(long, value_name = "NS", value_delimiter = ',')]
    from_namespace: Vec<String>,
    /// Namespace of the receiver
    #[arg(long, value_name = "NS", value_delimiter = ',')]
    to_namespace: Vec<String>,
    /// Address or CIDR on either side
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    ip: Vec<String>,
    /// Source address or CIDR
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    from_ip: Vec<String>,
    /// Destination address or CIDR
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    to_ip: Vec<String>,
    /// Port on either side
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    port: Vec<String>,
    /// Source port
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    from_port: Vec<String>,
    /// Destination port
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    to_port: Vec<String>,
    /// tcp, udp, sctp, icmp, icmpv4, icmpv6
    #[arg(long, value_delimiter = ',')]
    protocol: Vec<String>,
    /// FORWARDED, DROPPED or AUDIT
    #[arg(long, value_delimiter = ',')]
    verdict: Vec<String>,
    /// ingress or egress, seen from the pod
    #[arg(long, value_name = "DIRECTION", value_delimiter = ',')]
    traffic_direction: Vec<String>,
    /// Reason, by our name (PolicyDenied) or Hubble's (POLICY_DENIED)
    #[arg(long, alias = "drop-reason-desc", value_delimiter = ',')]
    reason: Vec<String>,
    /// drop (all that is dropped), policy-verdict or trace
    #[arg(short = 't', long = "type", value_name = "TYPE", value_delimiter = ',')]
    kind: Vec<String>,
}

/// What the server is asked for, and what is looked at here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chosen {
    /// Filters of which one must match; none for all flows.
    pub filters: Vec<FlowFilter>,
    /// Reasons by our names, which are finer than Hubble's; none for all.
    pub reasons: Vec<&'static str>,
}

/// The fields of a filter for the two sides.
type Fields = for<'a> fn(&'a mut FlowFilter) -> [&'a mut Vec<String>; 2];

/// The values of a flag for either side, and of those for each.
struct Sides {
    flag: &'static str,
    any: Vec<String>,
    from: Vec<String>,
    to: Vec<String>,
    fields: Fields,
}

impl Sides {
    /// Adds the values to all filters; what either side may have makes two of each.
    fn apply(self, mut filters: Vec<FlowFilter>) -> Result<Vec<FlowFilter>, FilterArgsError> {
        let Self { flag, any, from, to, fields } = self;
        for filter in &mut filters {
            let [source, destination] = fields(filter);
            source.clone_from(&from);
            destination.clone_from(&to);
        }
        if any.is_empty() {
            return Ok(filters);
        }
        if !(from.is_empty() && to.is_empty()) {
            return Err(FilterArgsError::Together { any: flag });
        }
        let mut both = Vec::new();
        for filter in filters {
            for side in 0..2 {
                let mut filter = filter.clone();
                fields(&mut filter)[side].clone_from(&any);
                both.push(filter);
            }
        }
        Ok(both)
    }
}

impl FilterArgs {
    /// The filters as the server understands them.
    ///
    /// # Errors
    /// The first value that means nothing.
    pub fn chosen(&self) -> Result<Chosen, FilterArgsError> {
        let mut one = FlowFilter { protocol: self.protocol.clone(), ..FlowFilter::default() };
        for value in &self.verdict {
            let verdict = Verdict::from_str_name(&value.to_ascii_uppercase());
            let names = [Verdict::Forwarded, Verdict::Dropped, Verdict::Audit];
            let names = names.map(|verdict| verdict.as_str_name());
            one.verdict.push(found("verdict", value, verdict, &names)?.into());
        }
        for value in &self.traffic_direction {
            let direction = TrafficDirection::from_str_name(&value.to_ascii_uppercase());
            let direction = found("traffic-direction", value, direction, &["ingress", "egress"])?;
            one.traffic_direction.push(direction.into());
        }
        const TYPES: [(&str, i32); 3] =
            [("drop", TYPE_DROP), ("policy-verdict", TYPE_POLICY_VERDICT), ("trace", TYPE_TRACE)];
        for value in &self.kind {
            let name = value.to_ascii_lowercase();
            let kind = TYPES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
            let r#type = found("type", value, kind, &TYPES.map(|(name, _)| name))?;
            one.event_type.push(EventTypeFilter { r#type, ..EventTypeFilter::default() });
        }
        let mut reasons = Vec::new();
        for value in &self.reason {
            let (code, name) = reason(value)?;
            one.drop_reason_desc.push(code);
            reasons.extend(name);
        }
        // A name of Hubble's among them stands for all of ours with that number.
        if reasons.len() < self.reason.len() {
            reasons.clear();
        }
        let mut filters = vec![one];
        for sides in [self.pods(), self.addresses(), self.ports()] {
            filters = sides.apply(filters)?;
        }
        if filters == [FlowFilter::default()] {
            filters.clear();
        }
        Ok(Chosen { filters, reasons })
    }

    fn addresses(&self) -> Sides {
        Sides {
            flag: "ip",
            any: self.ip.clone(),
            from: self.from_ip.clone(),
            to: self.to_ip.clone(),
            fields: |filter| [&mut filter.source_ip, &mut filter.destination_ip],
        }
    }

    fn ports(&self) -> Sides {
        Sides {
            flag: "port",
            any: self.port.clone(),
            from: self.from_port.clone(),
            to: self.to_port.clone(),
            fields: |filter| [&mut filter.source_port, &mut filter.destination_port],
        }
    }

    /// Pods, within the namespaces that are given beside them; or whole namespaces.
    fn pods(&self) -> Sides {
        let within = |pods: &[String], namespaces: &[String], all: &[String]| -> Vec<String> {
            if pods.is_empty() {
                return namespaces.iter().map(|namespace| format!("{namespace}/")).collect();
            }
            let named = |pod: &String| match pod.contains('/') || all.is_empty() {
                true => vec![pod.clone()],
                false => all.iter().map(|namespace| format!("{namespace}/{pod}")).collect(),
            };
            pods.iter().flat_map(named).collect()
        };
        let all = [&self.namespace[..], &self.from_namespace, &self.to_namespace].concat();
        Sides {
            flag: "pod",
            any: within(&self.pod, &self.namespace, &all),
            from: within(&self.from_pod, &self.from_namespace, &all),
            to: within(&self.to_pod, &self.to_namespace, &all),
            fields: |filter| [&mut filter.source_pod, &mut filter.destination_pod],
        }
    }
}

fn found<T>(
    flag: &'static str,
    value: &str,
    found: Option<T>,
    names: &[&str],
) -> Result<T, FilterArgsError> {
    found.ok_or_else(|| FilterArgsError::NoneOf {
        flag,
        value: value.to_owned(),
        names: names.join(", "),
        hint: near::hint(value, names.iter().copied()),
    })
}

/// Hubble's number of a reason, and our name if that was given.
fn reason(value: &str) -> Result<(i32, Option<&'static str>), FilterArgsError> {
    let ours = Reason::ALL.iter().find(|reason| reason.name().eq_ignore_ascii_case(value));
    if let Some(ours) = ours {
        let code = i32::try_from(ours.hubble_code()).unwrap_or(0);
        return Ok((code, Some(ours.name())));
    }
    let hubbles = DropReason::from_str_name(&value.to_ascii_uppercase());
    let names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    found("reason", value, hubbles.map(|reason| (reason.into(), None)), &names)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn chosen(line: &str) -> Result<Chosen, FilterArgsError> {
        let line = format!("enforcer observe {line}");
        match Cli::try_parse_from(line.split_whitespace()).unwrap().command {
            Command::Observe(args) => args.filters.chosen(),
            _ => panic!("another command"),
        }
    }

    #[test]
    fn no_flag_is_no_filter() {
        assert_eq!(chosen(""), Ok(Chosen::default()));
    }

    #[test]
    fn either_side_makes_two_filters_and_each_side_one() {
        let filters = chosen("--pod a,b --to-port 80 -t drop").unwrap().filters;
        let drop = vec![EventTypeFilter { r#type: 1, ..EventTypeFilter::default() }];
        let both = FlowFilter {
            destination_port: vec!["80".into()],
            event_type: drop,
            ..FlowFilter::default()
        };
        let pods = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(
            filters,
            [
                FlowFilter { source_pod: pods.clone(), ..both.clone() },
                FlowFilter { destination_pod: pods, ..both },
            ]
        );
        assert_eq!(chosen("--pod a --port 80 --ip 10.0.0.1").unwrap().filters.len(), 8);
        assert_eq!(chosen("--from-pod a --to-pod b").unwrap().filters.len(), 1);
    }

    #[test]
    fn a_namespace_says_where_pods_are() {
        let source = |line: &str| chosen(line).unwrap().filters[0].source_pod.clone();
        assert_eq!(source("-n shop"), ["shop/"]);
        assert_eq!(source("-n shop,bank --pod web"), ["shop/web", "bank/web"]);
        assert_eq!(source("-n shop --pod bank/web"), ["bank/web"]);
        assert_eq!(source("--pod web"), ["web"]);
        assert_eq!(source("--from-namespace shop --from-pod web"), ["shop/web"]);
    }

    #[test]
    fn reasons_have_our_names_or_hubbles() {
        let both = chosen("--reason SpoofedSource").unwrap();
        assert_eq!(
            (&*both.filters[0].drop_reason_desc, &*both.reasons),
            (&[132][..], &["SpoofedSource"][..])
        );
        let hubbles = chosen("--reason POLICY_DENIED,SpoofedSource").unwrap();
        assert_eq!(
            (&*hubbles.filters[0].drop_reason_desc, hubbles.reasons.len()),
            (&[133, 132][..], 0)
        );
    }

    #[test]
    fn what_means_nothing_is_refused_with_the_near_value() {
        for (line, expected) in [
            (
                "--verdict DROPED",
                "--verdict DROPED: must be one of FORWARDED, DROPPED, AUDIT (did you mean DROPPED?)",
            ),
            (
                "--type dorp",
                "--type dorp: must be one of drop, policy-verdict, trace (did you mean drop?)",
            ),
            ("--traffic-direction x", "--traffic-direction x: must be one of ingress, egress"),
            (
                "--pod a --from-pod b",
                "--pod cannot be used with --from-pod or --to-pod: use those two",
            ),
        ] {
            assert_eq!(chosen(line).unwrap_err().to_string(), expected);
        }
        let error = chosen("--reason PolicyDenid").unwrap_err().to_string();
        assert!(error.ends_with("(did you mean PolicyDenied?)"), "{error}");
    }
}
