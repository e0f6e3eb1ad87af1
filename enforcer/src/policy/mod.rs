//! Policy objects as the engine sees them: API objects to rules to verdict rows. Pure, no I/O.
//!
//! ```text
//! NetworkPolicy --compile--> Policy { subject, isolates, rules } --row--> sorted intervals
//! ```
//!
//! Where what is not there yet will sit, so that nothing has to be turned around for it:
//!
//! - explicit deny, audit-only and proxy redirect: further variants of [`rule::Action`], which a
//!   row carries to the kernel in an interval's `action` and `proxy_port`;
//! - ordered tiers around NetworkPolicy: the order of the rules that [`row::build`] is given is
//!   their precedence already; a tier is a field of [`rule::Policy`] that sorts before its name;
//! - peers that are DNS names: a variant of [`peer::Peer`] whose members are learnt addresses,
//!   a class member like every other.
#![forbid(unsafe_code)]

pub mod compile;
pub(crate) mod encode;
pub mod nearest;
pub mod peer;
pub mod row;
pub mod rule;
pub mod selector;
