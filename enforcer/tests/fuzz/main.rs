//! Input from outside, changed at random: whatever comes, nothing panics, hangs or is taken for more than
//! it is. Each target starts from its corpus (`corpus/TARGET`) and goes on for `ENFORCER_FUZZ_SECONDS`,
//! or a few; `cargo xtask fuzz TARGET --time` runs one for long. An input that fails is kept in the
//! corpus, so that it is a test from then on.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod corpus;
mod manifests;
mod mutate;
mod packets;
mod records;
mod requests;
mod run;
