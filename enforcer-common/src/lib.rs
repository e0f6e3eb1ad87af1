//! What the kernel half and the host half share.
//!
//! Everything here is `no_std`, allocates nothing and knows neither aya's kernel bindings nor
//! Kubernetes: the layouts of maps and events ([`abi`]), the packet parser ([`packet`]), the
//! conntrack transitions ([`conntrack`]), the verdict search ([`verdict`]), the reasons that name
//! every outcome ([`reason`]), and what is told of them ([`drops`], [`ending`], [`sample`]). The same source runs in the eBPF programs and in host tests.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod abi;
pub mod conntrack;
pub mod drops;
pub mod ending;
mod entry;
mod event;
pub mod packet;
pub mod reason;
pub mod sample;
mod service;
pub mod verdict;
mod word;
