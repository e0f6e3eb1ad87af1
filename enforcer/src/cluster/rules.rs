//! Rule numbers: a hash of what the rule is, so that an event that an earlier agent left in a
//! ring, and a flow that it left in conntrack, still name the rule after a restart.

use std::{
    collections::{HashMap, HashSet},
    hash::Hasher,
    sync::Arc,
};

use enforcer_common::abi::{Direction, RuleId, rule::FIRST_DYNAMIC};
use siphasher::sip::SipHasher24;

use super::{event::ObjectKey, plan::RuleIdentity};
use crate::policy::rule::{KIND, Rule, Scope};

/// Bits of a rule number.
const RULE_BITS: u32 = 28;
/// How many numbers there are for rules of policies.
const RULE_NUMBERS: u64 = (1 << RULE_BITS) - FIRST_DYNAMIC as u64;

type Key = (ObjectKey, Direction, u32);

#[derive(Debug)]
struct Entry {
    key: Key,
    scope: Scope,
    /// Tables that have the rule.
    tables: usize,
}

/// Rules in use and their numbers.
#[derive(Debug, Default)]
pub(super) struct Rules {
    ids: HashMap<Key, RuleId>,
    entries: HashMap<RuleId, Entry>,
    added: Vec<RuleId>,
    released: HashSet<RuleId>,
}

impl Rules {
    /// The number of a rule; it is in use from now on.
    pub(super) fn intern(
        &mut self,
        policy: &ObjectKey,
        direction: Direction,
        rule: &Rule,
    ) -> RuleId {
        let key = (policy.clone(), direction, rule.index);
        let scope = rule.scope();
        if let Some(&id) = self.ids.get(&key) {
            // The same place in the policy may ask for something else by now.
            if let Some(entry) = self.entries.get_mut(&id)
                && entry.scope != scope
            {
                entry.scope = scope;
                self.added.push(id);
            }
            return id;
        }
        let mut id = hash(&key);
        while self.entries.contains_key(&id) {
            id = if u64::from(id) + 1 < 1 << RULE_BITS { id + 1 } else { FIRST_DYNAMIC };
        }
        self.ids.insert(key.clone(), id);
        self.entries.insert(id, Entry { key, scope, tables: 0 });
        self.added.push(id);
        id
    }

    /// A table has the rule.
    pub(super) fn hold(&mut self, id: RuleId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.tables += 1;
        }
    }

    /// A table that has the rule is gone; without any other its number goes with the next plan.
    pub(super) fn release(&mut self, id: RuleId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.tables -= 1;
            if entry.tables == 0 {
                self.released.insert(id);
            }
        }
    }

    /// Whether [`Self::sweep`] has something to look at.
    pub(super) fn has_released(&self) -> bool {
        !self.released.is_empty()
    }

    /// Rules that came into use, or ask for something else, since the last call.
    pub(super) fn take_added(&mut self) -> Vec<(RuleId, Arc<RuleIdentity>)> {
        std::mem::take(&mut self.added)
            .into_iter()
            .filter_map(|id| {
                let Entry { key, scope, .. } = self.entries.get(&id)?;
                let (policy, direction, index) = key.clone();
                let scope = *scope;
                Some((id, Arc::new(RuleIdentity { kind: KIND, policy, direction, index, scope })))
            })
            .collect()
    }

    /// Forgets the rules that no table has any more, and says which.
    pub(super) fn sweep(&mut self) -> Vec<RuleId> {
        let mut gone = Vec::new();
        for id in std::mem::take(&mut self.released) {
            if self.entries.get(&id).is_some_and(|entry| entry.tables == 0)
                && let Some(entry) = self.entries.remove(&id)
            {
                self.ids.remove(&entry.key);
                gone.push(id);
            }
        }
        gone.sort_unstable();
        gone
    }
}

fn hash((policy, direction, index): &Key) -> RuleId {
    // No secret: a policy's author gains nothing from a collision, which is probed away.
    let mut hasher = SipHasher24::new_with_keys(0, 0);
    for part in [KIND, &policy.namespace, &policy.name] {
        hasher.write(&(part.len() as u64).to_be_bytes());
        hasher.write(part.as_bytes());
    }
    hasher.write(&[*direction as u8]);
    hasher.write(&index.to_be_bytes());
    let place = u32::try_from(hasher.finish() % RULE_NUMBERS).unwrap_or(0);
    FIRST_DYNAMIC + place
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rule::{Action, Peers, Ports};

    fn key(name: &str) -> ObjectKey {
        ObjectKey { namespace: "ns".into(), name: name.into() }
    }

    /// A rule in this place that allows everything.
    fn rule(index: u32) -> Rule {
        Rule { index, action: Action::Allow, peers: Peers::Any, ports: Ports::Any }
    }

    #[test]
    fn a_rule_that_asks_for_something_else_keeps_its_number_and_is_told_anew() {
        let mut rules = Rules::default();
        let id = rules.intern(&key("p"), Direction::Ingress, &rule(0));
        assert!(!rules.take_added()[0].1.scope.peers);
        assert_eq!(rules.intern(&key("p"), Direction::Ingress, &rule(0)), id);
        assert!(rules.take_added().is_empty());
        let narrower = Rule { peers: Peers::Of(Vec::new()), ..rule(0) };
        assert_eq!(rules.intern(&key("p"), Direction::Ingress, &narrower), id);
        let told = rules.take_added();
        assert_eq!((told.len(), told[0].0, told[0].1.scope.peers), (1, id, true));
    }

    #[test]
    fn numbers_are_stable_and_distinct() {
        let (mut a, mut b) = (Rules::default(), Rules::default());
        let first = a.intern(&key("p"), Direction::Ingress, &rule(0));
        b.intern(&key("q"), Direction::Egress, &rule(3));
        assert_eq!(first, b.intern(&key("p"), Direction::Ingress, &rule(0)));
        let others = [
            a.intern(&key("p"), Direction::Egress, &rule(0)),
            a.intern(&key("p"), Direction::Ingress, &rule(1)),
            a.intern(&key("q"), Direction::Ingress, &rule(0)),
        ];
        assert!(!others.contains(&first));
        assert!((FIRST_DYNAMIC..1 << RULE_BITS).contains(&first));
    }

    #[test]
    fn a_taken_number_is_passed_over() {
        let mut rules = Rules::default();
        let wanted = hash(&(key("p"), Direction::Ingress, 0));
        let other = (key("other"), Direction::Ingress, 0);
        rules.entries.insert(wanted, Entry { key: other, scope: rule(0).scope(), tables: 1 });
        assert_eq!(rules.intern(&key("p"), Direction::Ingress, &rule(0)), wanted + 1);
    }

    #[test]
    fn a_number_goes_with_the_last_table() {
        let mut rules = Rules::default();
        let id = rules.intern(&key("p"), Direction::Ingress, &rule(0));
        assert_eq!(rules.take_added()[0].1.policy, key("p"));
        rules.hold(id);
        rules.hold(id);
        rules.release(id);
        assert!(rules.sweep().is_empty());
        rules.release(id);
        assert!(rules.has_released());
        assert_eq!(rules.sweep(), [id]);
    }
}
