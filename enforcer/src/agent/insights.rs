//! What flows make known, from the thread that reads them to whoever should know: metrics at once,
//! the log and Kubernetes Events by the owning task.

use tokio::{
    sync::mpsc,
    time::{Duration, Instant},
};
use tracing::{info, warn};

use crate::{
    apiserver::notice::{Notice, Reason, Regarding},
    flow::{event::Flow, reading::Onlooker},
    hubble::events::AgentEvent,
    insight::{Insight, InsightConfig, Insights, Kind, Subject},
    metrics,
};

/// Insights that wait for the owning task, which looks each second.
const QUEUE: usize = 256;
/// Insights that are told within [`PERIOD`]; more are only counted.
const MOST: u32 = 60;
const PERIOD: Duration = Duration::from_secs(60);

/// Looks at flows on the thread that reads them.
#[derive(Debug)]
pub(super) struct Noticing {
    insights: Insights,
    counts: metrics::Insights,
    tell: mpsc::Sender<Insight>,
}

/// What was noticed, for the owning task.
#[derive(Debug)]
pub(super) struct Noticed {
    told: mpsc::Receiver<Insight>,
    period: Option<Instant>,
    in_period: u32,
    untold: u64,
}

/// Both ends.
pub(super) fn channel(config: InsightConfig, counts: metrics::Insights) -> (Noticing, Noticed) {
    let (tell, told) = mpsc::channel(QUEUE);
    let noticing = Noticing { insights: Insights::new(config), counts, tell };
    (noticing, Noticed { told, period: None, in_period: 0, untold: 0 })
}

impl Onlooker for Noticing {
    fn look(&mut self, flow: &Flow) {
        let Self { insights, counts, tell } = self;
        insights.look(flow, &mut |insight| {
            counts.count(insight.kind);
            // Counted all the same; who is flooded with insights reads none of them.
            let _full = tell.try_send(insight).is_err();
        });
    }
}

impl Noticed {
    /// What is new and should be told, in order; the rest is passed over.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Insight> {
        let mut told = Vec::new();
        while let Ok(insight) = self.told.try_recv() {
            if self.period.is_none_or(|began| now.duration_since(began) >= PERIOD) {
                self.end_period();
                self.period = Some(now);
            }
            if self.in_period < MOST {
                self.in_period += 1;
                told.push(insight);
            } else {
                self.untold += 1;
            }
        }
        told
    }

    fn end_period(&mut self) {
        let untold = std::mem::take(&mut self.untold);
        if untold > 0 {
            warn!(
                untold,
                "more was noticed in flows than is told; enforcer_insights_total has all"
            );
        }
        self.in_period = 0;
    }
}

/// Logs an insight.
pub(super) fn log(insight: &Insight) {
    info!(kind = insight.kind.name(), subject = %insight.subject, "{}", insight.text);
}

/// The insight as one of the agent's own events.
pub(super) fn agent_event(insight: &Insight) -> AgentEvent {
    let text = format!("{} {}", insight.subject, insight.text);
    AgentEvent::Insight { kind: insight.kind.name(), text }
}

/// The insight as an Event about its pod, if that is one of node `node`: every node of the cluster
/// sees some flows of other nodes' pods, and one should tell.
pub(super) fn notice(insight: &Insight, node: &str) -> Option<Notice> {
    let Subject::Pod(pod) = &insight.subject else { return None };
    if pod.node.as_deref() != Some(node) {
        return None;
    }
    let reason = match insight.kind {
        Kind::PortScan => Reason::PortScan,
        Kind::DeniedPeers => Reason::DeniedPeers,
        Kind::FirstOutside => Reason::FirstOutsideContact,
        Kind::Metadata => Reason::MetadataAccess,
        Kind::FirstApiServer => Reason::FirstApiServerContact,
    };
    let regarding = Regarding::pod(&pod.key.namespace, &pod.key.name, &pod.uid);
    Some(Notice { regarding, reason, note: insight.text.clone() })
}

#[cfg(test)]
mod tests {
    use enforcer_common::abi::Event;

    use super::*;
    use crate::flow::event::tests::{denied, flow, pod};

    fn scan(noticing: &mut Noticing, ports: std::ops::Range<u16>) {
        ports.for_each(|dst_port| noticing.look(&flow(&Event { dst_port, ..denied() })));
    }

    fn insight(subject: Subject) -> Insight {
        Insight { kind: Kind::PortScan, subject, time: 1, text: "tried".into() }
    }

    #[tokio::test]
    async fn what_flows_make_known_reaches_the_owner_once() {
        let counts = metrics::Metrics::new(std::time::Instant::now()).insights;
        let (mut noticing, mut noticed) = channel(InsightConfig::default(), counts.clone());
        scan(&mut noticing, 1..20);
        assert!(noticed.take(Instant::now()).is_empty());
        scan(&mut noticing, 20..60);
        let told = noticed.take(Instant::now());
        let kinds: Vec<Kind> = told.iter().map(|insight| insight.kind).collect();
        assert_eq!((kinds, counts.get(Kind::PortScan)), (vec![Kind::PortScan], 1));
        assert!(noticed.take(Instant::now()).is_empty());
    }

    #[tokio::test]
    async fn a_flood_is_cut_and_the_next_minute_begins_anew() {
        let counts = metrics::Metrics::new(std::time::Instant::now()).insights;
        let (noticing, mut noticed) = channel(InsightConfig::default(), counts);
        let flood = || {
            let one = || insight(Subject::Address([10, 0, 0, 9].into()));
            (0..QUEUE + 9).filter(|_| noticing.tell.try_send(one()).is_ok()).count()
        };
        let now = Instant::now();
        assert_eq!(flood(), QUEUE);
        assert_eq!(noticed.take(now).len(), 60);
        flood();
        assert_eq!(noticed.take(now + PERIOD - Duration::from_secs(1)).len(), 0);
        assert_eq!(noticed.untold, 2 * QUEUE as u64 - 60);
        flood();
        assert_eq!(noticed.take(now + PERIOD).len(), 60);
    }

    #[test]
    fn events_are_about_pods_of_this_node() {
        let web = insight(Subject::Pod(pod("shop", "web")));
        let told = notice(&web, "w1").unwrap();
        assert_eq!(told.regarding, Regarding::pod("shop", "web", ""));
        assert_eq!((told.reason, &*told.note), (Reason::PortScan, "tried"));
        assert_eq!(notice(&web, "w2"), None);
        assert_eq!(notice(&insight(Subject::Address([10, 0, 0, 9].into())), "w1"), None);
    }

    #[test]
    fn an_event_has_the_insights_name() {
        for kind in Kind::ALL {
            let one = Insight { kind, ..insight(Subject::Pod(pod("shop", "web"))) };
            let reason = notice(&one, "w1").map(|notice| format!("{:?}", notice.reason));
            assert_eq!(reason.as_deref(), Some(kind.name()));
        }
    }
}
