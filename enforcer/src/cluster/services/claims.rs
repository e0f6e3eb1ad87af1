//! Whose an address is that several objects may claim: its name in flows.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use super::few::Few;
use crate::cluster::plan::NameChange;

/// Who claims an address; of several the first in order gives the name.
#[derive(Debug)]
pub(super) struct Claims<T> {
    claims: HashMap<IpAddr, Few<T>>,
    /// Addresses with other claims than at the last [`Self::take`], and their name then.
    touched: BTreeMap<IpAddr, Option<T>>,
}

impl<T> Default for Claims<T> {
    fn default() -> Self {
        Self { claims: HashMap::new(), touched: BTreeMap::new() }
    }
}

impl<T: Ord + Clone> Claims<T> {
    /// Whether the next [`Self::take`] may have something to tell.
    pub(super) fn has_changed(&self) -> bool {
        !self.touched.is_empty()
    }

    fn name(&self, address: IpAddr) -> Option<&T> {
        self.claims.get(&address)?.first()
    }

    pub(super) fn change(&mut self, who: &T, old: Option<Vec<IpAddr>>, new: Vec<IpAddr>) {
        let old = old.unwrap_or_default();
        for address in old.iter().filter(|address| !new.contains(address)) {
            self.touch(*address);
            if let Some(claims) = self.claims.get_mut(address) {
                claims.remove(who);
                if claims.is_empty() {
                    self.claims.remove(address);
                }
            }
        }
        for address in new.into_iter().filter(|address| !old.contains(address)) {
            self.touch(address);
            self.claims.entry(address).or_default().insert(who.clone());
        }
    }

    fn touch(&mut self, address: IpAddr) {
        let before = self.name(address).cloned();
        self.touched.entry(address).or_insert(before);
    }

    pub(super) fn take(
        &mut self,
        named: impl Fn(IpAddr, T) -> NameChange,
        gone: impl Fn(IpAddr) -> NameChange,
    ) -> Vec<NameChange> {
        let touched = std::mem::take(&mut self.touched).into_iter();
        touched
            .filter_map(|(address, before)| match self.name(address) {
                now if now == before.as_ref() => None,
                Some(now) => Some(named(address, now.clone())),
                None => Some(gone(address)),
            })
            .collect()
    }
}
