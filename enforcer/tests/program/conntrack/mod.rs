//! Conntrack: every transition, with what the entry says after each packet; what is related to a
//! flow and what only claims to be; and what a full table or quota may not do. 15 s.

mod datagrams;
mod errors;
mod node;
mod room;
mod script;
mod tcp;
