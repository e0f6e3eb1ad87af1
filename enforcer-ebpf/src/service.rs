//! Services at the sender's hook: whether an address is translated behind it, what can be judged
//! before, and the mark that has the rest judged behind the translation.

use aya_ebpf::bindings::__sk_buff;
use enforcer_common::{
    abi::{
        ANY_NODE_ADDRESS, Addr, Backend, CONTROL_REST, CONTROL_UNCOVERED, CT_FROM_POD, CT_HAIRPIN,
        CT_SERVICE, CT_SERVICE_LOCAL, CT_SERVICE_NODE, ClassId, CtEntry, CtKey6, Direction,
        EP_LOCKED, MARK_JUDGE, MARK_SERVICE, MARK_TELL, NODE_BACKENDS, NODE_SERVES_PORTS,
        REST_OF_SERVICES, SERVICE_PAIRS, SVC_NODE_MANY, SVC_OTHERS, Service, ServiceKey, rule,
    },
    conntrack::{SECOND, SEEN},
    reason::Reason,
    verdict::{
        port_key,
        proto::{SCTP, TCP, UDP},
    },
};

use crate::{
    flow::Tuple,
    hook,
    judge::{Flow, from_node, judge_flow},
    maps::{BACKEND_KEY, BACKENDS, CONTROL, NODE_ADDRS, SERVICES},
    skb::Skb,
    spare,
    state::{Judged, State},
    table::{BY_CLASS, Query, class_apart, look_up},
};

const EGRESS: u32 = Direction::Egress as u32;

/// [`judge_service`]'s answer: the packet is for no Service.
pub(crate) const NOT_A_SERVICE: u64 = u64::MAX;

/// Whether a packet is of a protocol that Services are for.
#[inline(always)]
pub(crate) fn has_ports(state: &State) -> bool {
    matches!(state.packet.proto, TCP | UDP | SCTP)
}

/// Whether a packet can be for a Service at all.
#[inline(always)]
pub(crate) fn may_be(state: &State) -> bool {
    state.egress() && has_ports(state)
}

/// What is known of the Service at this address, and whether the packet may as well be for the
/// address itself: one of the node's on which the node port is not served for all that is known, or
/// any address where some Services' are not in the map.
#[inline(always)]
fn find(state: &State) -> Option<(&'static Service, bool)> {
    let addr = *state.remote();
    let mut key = ServiceKey { addr, port: state.remote_port, proto: state.packet.proto, _pad: 0 };
    let mut unserved = false;
    let service = match SERVICES.get_ptr(key) {
        Some(service) => service,
        None => match NODE_ADDRS.get_ptr(addr) {
            Some(node) => {
                // SAFETY: the element stays mapped (RCU).
                unserved = unsafe { *node } & NODE_SERVES_PORTS == 0;
                key.addr = ANY_NODE_ADDRESS;
                SERVICES.get_ptr(key)?
            }
            None if control() & CONTROL_REST != 0 => {
                unserved = true;
                SERVICES.get_ptr(REST_OF_SERVICES)?
            }
            None => return None,
        },
    };
    // SAFETY: not preallocated, so the element lives until the program returns (RCU). Should it come
    // to serve another key meanwhile, the Service has just gone: what is read then closes a flow
    // that begins in this instant, or leaves it to the hook behind the translation.
    Some((unsafe { &*service }, unserved))
}

/// The `CT_SERVICE…` bits of a flow to it.
#[inline(always)]
fn bits(service: &Service, unserved: bool) -> u8 {
    if service.node_count > 0 || unserved { CT_SERVICE | CT_SERVICE_NODE } else { CT_SERVICE }
}

/// A packet that opens a flow, or that has none: a [`Judged`], or [`NOT_A_SERVICE`]. What goes on to
/// be judged behind the translation is marked, and flagged with the `CT_SERVICE…` bits of its entry
/// in the place of a hidden slot.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn judge_service(skb: *mut __sk_buff, state: *const State) -> u64 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return Judged::new(Reason::PolicyDenied, rule::NONE).0;
    };
    let Some((service, unserved)) = find(state) else {
        return NOT_A_SERVICE;
    };
    let bits = u16::from(bits(service, unserved));
    // Of a denial, too: one that is spared leaves an entry, which must not be taken for a flow to the
    // virtual address itself.
    Judged(judge_found(skb, state, service, unserved)).flagged(0, bits).0
}

#[inline(always)]
fn judge_found(skb: *mut __sk_buff, state: &State, service: &Service, unserved: bool) -> u64 {
    if !state.isolated() {
        return Judged::new(Reason::NotIsolated, rule::NOT_ISOLATED).0;
    }
    if hook::at(state.slot).is_none_or(|endpoint| endpoint.flags & EP_LOCKED != 0) {
        return Judged::new(Reason::Locked, rule::NONE).0;
    }
    let mut query = Query::out(state);
    if unserved {
        // It may as well be for the address itself: both must be allowed.
        let plain = Judged(look_up(&raw const query));
        if !plain.allows() {
            return plain.0;
        }
    }
    let node = Judged(node_backends(service, &mut query, state.packet.proto));
    let mut others = Judged(other_backends(service, &mut query, state.packet.proto));
    if !others.allows() && has_class(service, class_apart(&state.packet.src)) {
        // The pod may be a backend of its own Service, and it reaches itself.
        others = Judged::new(Reason::Pending, rule::NONE);
    }
    if node.is(Reason::ServiceNodeBackend) || !node.allows() {
        // Who gets the packet is decided behind this hook, and a process of the node has none.
        let alone = service.flags & SVC_OTHERS == 0 || !others.allows();
        return if alone || node.is(Reason::ServiceNodeBackend) {
            node.0
        } else {
            Judged::new(Reason::ServiceNodeBackend, node.rule()).0
        };
    }
    // What is spared goes on to its backend, and is told there, once.
    if service.node_count == 0
        && !others.allows()
        && spare::spared(state.slot, state.now) == spare::NO
    {
        return others.0;
    }
    // Without a slice it may be anybody's.
    let elsewhere = service.flags & SVC_OTHERS != 0 || service.node_count == 0;
    if elsewhere && !others.is(Reason::Allowed) && uncovered() {
        return Judged::new(Reason::ServiceUnjudged, rule::NONE).0;
    }
    let opens = state.packet.proto != TCP || state.packet.is_tcp_open();
    let tell = if opens { MARK_TELL } else { 0 };
    Skb::new(skb).set_tc_index(state.slot | MARK_SERVICE | MARK_JUDGE | tell);
    Judged::new(Reason::Pending, rule::NONE).0
}

/// Whether packets may leave the node by an interface where nothing judges them.
#[inline(always)]
fn uncovered() -> bool {
    control() & CONTROL_UNCOVERED != 0
}

/// `CONTROL_…` bits.
#[inline(always)]
fn control() -> u32 {
    let Some(control) = CONTROL.get_ptr(0) else {
        return u32::MAX;
    };
    // SAFETY: array elements live as long as the map.
    let control = unsafe { &*control };
    spare::read(&control.flags)
}

/// Backends that are processes of this node: allowed if all are; of none, allowed.
#[inline(always)]
fn node_backends(service: &Service, query: &mut Query, proto: u8) -> u64 {
    if service.flags & SVC_NODE_MANY != 0 {
        return Judged::new(Reason::ServiceNodeBackend, rule::NONE).0;
    }
    let v4 = query.remote.is_v4();
    let mut judged = Judged::new(Reason::Allowed, rule::NONE);
    let mut at = 0;
    while at < NODE_BACKENDS {
        if let Some(backend) = service.node.get(at)
            && at < usize::from(service.node_count)
            && backend.addr.is_v4() == v4
        {
            query.remote = backend.addr;
            query.key = port_key(proto, backend.port);
            judged = Judged(look_up(query));
            if !judged.allows() {
                return judged.0;
            }
        }
        at += 1;
    }
    judged.0
}

/// Whether a backend of the Service is known to have this class.
#[inline(always)]
fn has_class(service: &Service, class: ClassId) -> bool {
    let mut at = 0;
    while at < SERVICE_PAIRS {
        if let Some(pair) = service.pairs.get(at)
            && at < usize::from(service.pair_count)
            && pair.class == class
        {
            return true;
        }
        at += 1;
    }
    false
}

/// All other backends: [`Reason::Allowed`] if they are known and all allowed, a denial if they are
/// known and all denied, else [`Reason::Pending`].
#[inline(always)]
fn other_backends(service: &Service, query: &mut Query, proto: u8) -> u64 {
    let (mut allowed, mut denied) = (false, 0);
    query.by = BY_CLASS;
    let mut at = 0;
    while at < SERVICE_PAIRS {
        if let Some(pair) = service.pairs.get(at)
            && at < usize::from(service.pair_count)
        {
            query.remote = Addr([pair.class as u32, (pair.class >> 32) as u32, 0, 0]);
            query.key = port_key(proto, pair.port);
            let judged = Judged(look_up(query));
            if judged.allows() {
                allowed = true;
            } else {
                denied = judged.0;
            }
        }
        at += 1;
    }
    query.by = 0;
    if denied == 0 {
        let reason = if allowed { Reason::Allowed } else { Reason::Pending };
        return Judged::new(reason, rule::NONE).0;
    }
    if allowed { Judged::new(Reason::Pending, rule::NONE).0 } else { denied }
}

/// The `CT_SERVICE…` bits of a flow whose entry says nothing of a Service, if its address has become
/// one's since.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn became(state: *const State) -> u32 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return 0;
    };
    find(state).map_or(0, |(service, unserved)| u32::from(bits(service, unserved)))
}

/// Marks the pod's packet on a flow to a Service that has an entry: judged behind the translation
/// if the flow has no answer yet, is older than the policy, or has had none for so long that the
/// translation may be another one (at least 1 s: answers refresh the entry once a second).
#[inline(never)]
pub(crate) fn mark(skb: Skb, state: &State, entry: &mut CtEntry) {
    let idle = state.now.saturating_sub(entry.last_seen);
    let generation = state.policy().generation();
    let due = entry.seen_reply & SEEN == 0 || entry.generation != generation || idle > SECOND;
    if due && entry.generation == generation && spare::spared(state.slot, state.now) != spare::NO {
        // What passes behind the translation only because it is spared must be asked about again.
        entry.generation = !generation;
    }
    let judge = if due { MARK_JUDGE } else { 0 };
    skb.set_tc_index(state.slot | MARK_SERVICE | judge);
}

/// Whether a packet towards the pod, on a flow that it opened to a Service, may be this flow's: a
/// process of the node answers only where the Service has one that the pod may reach.
#[inline(always)]
pub(crate) fn may_answer(skb: Skb, state: &State, entry: &mut CtEntry) -> bool {
    if !from_node(skb, state) {
        return true;
    }
    if entry.service & (CT_SERVICE_NODE | CT_SERVICE_LOCAL) != 0 || node_answers(state) != 0 {
        entry.service |= CT_SERVICE_LOCAL;
        return true;
    }
    state.word & (1 << EGRESS) == 0
}

/// Judges a known flow to a Service anew, for the backend that it has: a [`Judged`], of
/// [`Reason::Pending`] if that is not known here.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn judge_known(state: *const State, entry: *const CtEntry) -> u64 {
    let denied = Judged::new(Reason::PolicyDenied, rule::DEFAULT_DENY).0;
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return denied;
    };
    if state.word & (1 << EGRESS) == 0 {
        return Judged::new(Reason::NotIsolated, rule::NOT_ISOLATED).0;
    }
    // SAFETY: as above, with a whole `CtEntry`.
    let Some(entry) = (unsafe { entry.as_ref() }) else {
        return denied;
    };
    let mut flow = Flow::of(state, entry);
    // Whoever may have opened what was picked up: nobody but the pod sends to a Service.
    flow.flags = CT_FROM_POD;
    let local = entry.service & CT_SERVICE_LOCAL != 0;
    // What is not TCP may have got another backend since: what the pod sends is always judged behind
    // the translation, and must get there for the translation to be renewed.
    let noted = state.packet.proto == TCP || !state.egress() || local;
    if noted && backend(state, entry.created, &mut flow) {
        if hook::owns(state.slot, &flow.remote) {
            flow.flags |= CT_HAIRPIN;
        }
        return judge_flow(&raw const flow);
    }
    if !local {
        return Judged::new(Reason::Pending, rule::NONE).0;
    }
    judge_local(state)
}

/// Judges a known flow to a Service that a process of the node has answered, so that no hook will
/// see where its packets go: a [`Judged`].
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn judge_local(state: *const State) -> u64 {
    let denied = Judged::new(Reason::PolicyDenied, rule::DEFAULT_DENY).0;
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return denied;
    };
    let Some((service, unserved)) = find(state) else {
        return denied;
    };
    let mut query = Query::out(state);
    if unserved {
        return look_up(&raw const query);
    }
    if service.node_count == 0 {
        return if node_answers(state) != 0 { look_up(&raw const query) } else { denied };
    }
    node_backends(service, &mut query, state.packet.proto)
}

/// Puts the flow's backend in place of the virtual address, if it is known.
#[inline(never)]
fn backend(state: &State, opened: u64, flow: &mut Flow) -> bool {
    // The chain of calls that leads here has no room on the stack for a key.
    let Some(key) = BACKEND_KEY.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: a per-CPU value, and TC programs are not re-entered on a CPU.
    let key = unsafe { &mut *key };
    *key = Tuple::of(state).key6();
    let key = &*key;
    let Some(found) = BACKENDS.get_ptr(key) else {
        return false;
    };
    // SAFETY: the element stays mapped (RCU).
    let found: &Backend = unsafe { &*found };
    // Before the key, each. An earlier flow of this key may have had another backend.
    let created = spare::read(&found.created);
    flow.remote = spare::read(&found.addr);
    flow.remote_port = spare::read(&found.port);
    created == opened && is_same(&found.key, key)
}

/// Whether a key in a map is this one, read word by word and after what was read before.
#[inline(always)]
fn is_same(found: &CtKey6, key: &CtKey6) -> bool {
    let mut same = spare::read(&found.ifindex) == key.ifindex
        && spare::read(&found.local_port) == key.local_port
        && spare::read(&found.remote_port) == key.remote_port
        && spare::read(&found.proto) == key.proto;
    let mut at = 0;
    while at < 4 {
        let pairs = [(&found.local, &key.local), (&found.remote, &key.remote)];
        for (found, key) in pairs {
            if let (Some(found), Some(key)) = (found.get(at), key.get(at)) {
                same &= spare::read(found) == *key;
            }
        }
        at += 1;
    }
    same
}

/// Whether a process of the node may answer at a Service's address that is the node's own, too: as
/// one at any other address of the node.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn node_answers(state: *const State) -> u32 {
    // SAFETY: the verifier checks that the pointer is null or to a whole `State`.
    let Some(state) = (unsafe { state.as_ref() }) else {
        return 0;
    };
    let query = Query::out(state);
    if NODE_ADDRS.get_ptr(query.remote).is_none() {
        return 0;
    }
    u32::from(Judged(look_up(&raw const query)).allows())
}
