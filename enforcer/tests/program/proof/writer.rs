//! The index that feeds the maps, and the names of what it numbers.

use std::collections::BTreeMap;

use enforcer::cluster::{
    Index, IndexConfig, KernelState,
    event::{Event, Interface},
    plan::{NameChange, Plan},
};
use enforcer_common::abi::{self, RuleId};
use enforcer_reference::{Cluster, Direction, Name, Rule};

use super::events;

/// An index with the interfaces of the local pods.
pub(crate) struct Writer {
    pub(crate) index: Index,
    /// Interfaces of the local pods.
    pub(crate) interfaces: Vec<Interface>,
    rules: BTreeMap<RuleId, Rule>,
}

impl Writer {
    /// One that knows nothing yet; its tables get numbers from `first_table`.
    pub(crate) fn new(interfaces: Vec<Interface>, first_table: u32) -> Self {
        let config = IndexConfig { class_key: [1, 2], first_table, ..IndexConfig::default() };
        Self { index: Index::new(config), interfaces, rules: BTreeMap::new() }
    }

    /// One that is told all of a cluster at once, and what it would have the maps hold.
    pub(crate) fn of(interfaces: &[Interface], cluster: &Cluster) -> (Self, KernelState) {
        let mut writer = Self::new(interfaces.to_vec(), 1 << 20);
        let found = interfaces.iter().cloned().map(Event::InterfaceFound);
        found.chain(events::all(cluster)).for_each(|event| writer.index.apply(event));
        while writer.plan().is_some() {}
        let state = writer.index.snapshot();
        (writer, state)
    }

    /// The next plan, if there is one.
    pub(crate) fn plan(&mut self) -> Option<Plan> {
        let plan = self.index.take_plan();
        for name in &plan.names {
            if let NameChange::Rule(number, rule) = name {
                let policy = Name::new(&rule.policy.namespace, &rule.policy.name);
                let direction = match rule.direction {
                    abi::Direction::Ingress => Direction::Ingress,
                    abi::Direction::Egress => Direction::Egress,
                };
                let rule = Rule { policy, direction, index: rule.index as usize };
                self.rules.insert(*number, rule);
            }
        }
        (!plan.is_empty()).then_some(plan)
    }

    /// The rule that a number means.
    pub(crate) fn rule(&self, number: RuleId) -> Option<&Rule> {
        self.rules.get(&number)
    }

    /// The interface of the local pod in a slot.
    pub(crate) fn ifindex(&self, slot: usize) -> u32 {
        self.interfaces[slot].ifindex
    }
}
