//! Filters on an interface's clsact qdisc (`linux/pkt_sched.h`, `linux/pkt_cls.h`).
//!
//! Every function asks in the calling thread's network namespace.

use std::sync::Arc;

use libc::{
    RTM_DELQDISC, RTM_DELTFILTER, RTM_GETQDISC, RTM_GETTFILTER, RTM_NEWQDISC, RTM_NEWTFILTER,
    TCA_KIND, TCA_OPTIONS,
};

use super::{
    error::NetlinkError,
    socket::{Family, Requests},
    wire::{ACK, Attributes, DUMP, ECHO, Message, Request, text, u32_at},
};

/// Bytes of `struct tcmsg`.
const HEADER: usize = 20;
const TCA_CHAIN: u16 = 11;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;
/// `TC_H_CLSACT`, which is `TC_H_INGRESS`: an old ingress qdisc is in the same place.
const TC_H_CLSACT: u32 = 0xffff_fff1;

/// A side of the clsact qdisc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parent {
    /// What the interface receives.
    Ingress,
    /// What the interface sends.
    Egress,
}

impl Parent {
    /// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS or TC_H_MIN_EGRESS)`.
    const fn handle(self) -> u32 {
        match self {
            Self::Ingress => 0xffff_fff2,
            Self::Egress => 0xffff_fff3,
        }
    }
}

/// One filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Kind of classifier: `bpf`, `flower`, `matchall`, …
    pub kind: Arc<str>,
    /// Priority: lower runs first.
    pub priority: u16,
    /// Handle among the filters of this priority.
    pub handle: u32,
    /// Chain; packets begin in 0.
    pub chain: u32,
    /// Id of its eBPF program.
    pub program_id: Option<u32>,
    /// Name of the program as the filter's maker gave it.
    pub program_name: Option<Arc<str>>,
}

fn header(ifindex: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    [0, ifindex, handle, parent, info].into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// The filters of one side, in the order in which they run. Empty where there is no clsact qdisc.
///
/// # Errors
/// If the kernel does not answer, or there is no interface of this index.
pub fn filters(ifindex: u32, parent: Parent) -> Result<Vec<Filter>, NetlinkError> {
    let request = Request::new(RTM_GETTFILTER, DUMP, &header(ifindex, 0, parent.handle(), 0));
    let mut filters = Requests::open(Family::Route)?.dump("list filters", &request, filter)?;
    filters.sort_by_key(|filter| (filter.chain, filter.priority));
    Ok(filters)
}

fn filter(message: &Message<'_>) -> Option<Filter> {
    if message.kind != RTM_NEWTFILTER {
        return None;
    }
    let handle = u32_at(message.payload, 8)?;
    let info = u32_at(message.payload, 16)?;
    let attributes = Attributes::after(message.payload, HEADER);
    let kind = text(attributes.clone().find(TCA_KIND)?).into();
    let chain = attributes.clone().find(TCA_CHAIN).and_then(|value| u32_at(value, 0)).unwrap_or(0);
    // A message without options stands for the priority itself, not for a filter.
    let options = Attributes(attributes.find(TCA_OPTIONS)?);
    let mut filter = Filter {
        kind,
        priority: u16::try_from(info >> 16).unwrap_or(0),
        handle,
        chain,
        program_id: None,
        program_name: None,
    };
    // The numbers mean something else to other classifiers.
    if &*filter.kind == "bpf" {
        filter.program_id = options.clone().find(TCA_BPF_ID).and_then(|value| u32_at(value, 0));
        filter.program_name = options.find(TCA_BPF_NAME).map(|value| text(value).into());
    }
    Some(filter)
}

/// Whether the interface has a clsact qdisc. An ingress qdisc, which is in the same place and
/// carries no egress filters, is none.
///
/// # Errors
/// If the kernel does not answer, or there is no interface of this index.
pub fn has_clsact(ifindex: u32) -> Result<bool, NetlinkError> {
    let mut request = Request::new(RTM_GETQDISC, ACK | ECHO, &header(ifindex, 0, TC_H_CLSACT, 0));
    let mut found = false;
    let mut requests = Requests::open(Family::Route)?;
    let answer = requests.exchange("look for a clsact qdisc", &mut request, |message| {
        let kind = Attributes::after(message.payload, HEADER).find(TCA_KIND).map(text);
        found |= message.kind == RTM_NEWQDISC && kind.as_deref() == Some("clsact");
    });
    match answer {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
        Ok(_) => Ok(found),
    }
}

/// Deletes one `bpf` filter; the caller knows that it is its own.
///
/// # Errors
/// If priority or handle is 0, or the kernel refuses: there is no such filter (`ENOENT`).
pub fn delete_filter(
    ifindex: u32,
    parent: Parent,
    priority: u16,
    handle: u32,
) -> Result<(), NetlinkError> {
    if priority == 0 || handle == 0 {
        return Err(NetlinkError::Unspecific);
    }
    // The kernel compares the kind, so no other classifier's filter can be hit.
    let header = header(ifindex, handle, parent.handle(), u32::from(priority) << 16);
    let mut request = Request::new(RTM_DELTFILTER, ACK, &header).attribute(TCA_KIND, b"bpf\0");
    Requests::open(Family::Route)?.exchange("delete a filter", &mut request, |_| {})?;
    Ok(())
}

/// Deletes the clsact qdisc with all that is on it; the caller knows that it made it and that
/// nothing of others is left on it.
///
/// # Errors
/// If the kernel refuses: there is none (`ENOENT`, `EINVAL`).
pub fn delete_clsact(ifindex: u32) -> Result<(), NetlinkError> {
    // The kernel compares the kind, so no ingress qdisc can be hit.
    let mut request = Request::new(RTM_DELQDISC, ACK, &header(ifindex, 0, TC_H_CLSACT, 0))
        .attribute(TCA_KIND, b"clsact\0");
    Requests::open(Family::Route)?.exchange("delete a clsact qdisc", &mut request, |_| {})?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dataplane::netlink::testing::{
        Namespace, Program, ifindex, keep_only_net_admin, sh,
    };

    const TCA_BPF_FD: u16 = 6;
    const TCA_BPF_FLAGS: u16 = 8;
    /// `NLM_F_CREATE | NLM_F_EXCL`.
    const CREATE: u16 = 0x600;

    fn add(ifindex: u32, parent: Parent, priority: u16, program: &Program) {
        // Any protocol: ETH_P_ALL in network order.
        let info = u32::from(priority) << 16 | u32::from(3_u16.to_be());
        let options = Request::new(0, 0, &[])
            .attribute(TCA_BPF_FD, &program.fd().to_ne_bytes())
            .attribute(TCA_BPF_NAME, b"nlt_prog\0")
            .attribute(TCA_BPF_FLAGS, &1_u32.to_ne_bytes());
        let header = header(ifindex, 0, parent.handle(), info);
        let mut request = Request::new(RTM_NEWTFILTER, ACK | CREATE, &header)
            .attribute(TCA_KIND, b"bpf\0")
            .nested(TCA_OPTIONS, &options);
        Requests::open(Family::Route).unwrap().exchange("add", &mut request, |_| {}).unwrap();
    }

    #[test]
    fn filters_are_listed_and_only_the_named_one_is_deleted() {
        Namespace::new().run(|| {
            sh("ip link add d0 type bridge; tc qdisc add dev d0 clsact");
            sh("tc filter add dev d0 ingress pref 9 protocol ip u32 match u32 0 0");
            let (ifindex, program, other) = (ifindex("d0"), Program::load(), Program::load());
            add(ifindex, Parent::Ingress, 2, &program);
            add(ifindex, Parent::Ingress, 2, &other);
            add(ifindex, Parent::Egress, 1, &other);
            keep_only_net_admin();
            let ingress = filters(ifindex, Parent::Ingress).unwrap();
            let seen: Vec<_> =
                ingress.iter().map(|f| (f.priority, &*f.kind, f.program_id)).collect();
            let (first, second) = ((2, "bpf", Some(program.id())), (2, "bpf", Some(other.id())));
            assert!(seen[..2].contains(&first) && seen[..2].contains(&second), "{seen:?}");
            assert!(seen.len() > 2 && seen[2..].iter().all(|f| *f == (9, "u32", None)), "{seen:?}");
            let ours = ingress.iter().find(|f| f.program_id == Some(program.id())).unwrap();
            assert_eq!(ours.program_name.as_deref(), Some("nlt_prog"));
            assert_eq!(filters(ifindex, Parent::Egress).unwrap().len(), 1);

            delete_filter(ifindex, Parent::Ingress, ours.priority, ours.handle).unwrap();
            let left = filters(ifindex, Parent::Ingress).unwrap();
            let others: Vec<Filter> = ingress.iter().filter(|f| *f != ours).cloned().collect();
            assert_eq!(left, others);
            // Another kind's filter is not ours to delete, whatever its handle.
            let foreign = left.last().unwrap();
            delete_filter(ifindex, Parent::Ingress, foreign.priority, foreign.handle).unwrap_err();
            assert_eq!(filters(ifindex, Parent::Ingress).unwrap(), left);
            let unspecific = delete_filter(ifindex, Parent::Ingress, 2, 0);
            assert!(matches!(unspecific, Err(NetlinkError::Unspecific)));
        });
    }

    #[test]
    fn clsact_is_told_from_ingress() {
        Namespace::new().run(|| {
            sh("ip link add d0 type bridge; ip link add d1 type bridge; ip link add d2 type bridge");
            sh("tc qdisc add dev d1 ingress; tc qdisc add dev d2 clsact");
            let [none, old, new] = ["d0", "d1", "d2"].map(ifindex);
            assert!(!has_clsact(none).unwrap());
            assert!(!has_clsact(old).unwrap());
            assert!(has_clsact(new).unwrap());
            assert_eq!(has_clsact(9999).unwrap_err().errno(), Some(libc::ENODEV));
            assert_eq!(filters(none, Parent::Egress).unwrap(), []);
            delete_clsact(old).unwrap_err();
            sh("tc qdisc show dev d1 | grep -q ingress");
            delete_clsact(new).unwrap();
            assert!(!has_clsact(new).unwrap());
            delete_clsact(none).unwrap_err();
        });
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(payload in prop::collection::vec(any::<u8>(), 0..128)) {
            let message =
                Message { kind: RTM_NEWTFILTER, flags: 0, sequence: 0, payload: &payload };
            let found = filter(&message);
            prop_assert!(found.is_none() || payload.len() >= HEADER);
        }
    }
}
