//! Which word about an object counts, when several watches speak of it and none is ahead for sure.
//! Pure.
//!
//! Pods come by two watches. The general one names all that have not finished; the node's own one
//! names this node's in every phase and tells their changes without the cluster's in front of them.
//! An object's version is a number that only grows, over all objects, so the newest word wins, and
//! what an object was before it was deleted is never believed afterwards.

use std::collections::{HashMap, HashSet};

use crate::cluster::event::ObjectKey;

/// One of the watches on a kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// The only one, or the one that loses sight of pods that finish.
    General,
    /// The one that sees its objects until they are deleted.
    Own,
}

impl Lane {
    const BOTH: [Self; 2] = [Self::General, Self::Own];

    const fn bit(self) -> u8 {
        1 << self as u8
    }

    const fn other(self) -> Self {
        match self {
            Self::General => Self::Own,
            Self::Own => Self::General,
        }
    }
}

/// How many watches there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    One,
    Two,
}

/// What to do about a word that an object is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// It is news.
    News,
    /// Something as new, or newer, is known.
    Stale,
}

/// An object that is there.
#[derive(Debug)]
struct Entry {
    version: u64,
    /// The newest version that the own lane has told. A newer one may be of another node's pod.
    own: u64,
    /// Lanes that have it.
    lanes: u8,
    /// Whether it has been understood in some version.
    understood: bool,
}

/// All objects of a kind.
#[derive(Debug)]
pub(super) struct Lanes {
    width: Width,
    entries: HashMap<ObjectKey, Entry>,
    /// Objects that are gone, and since which version, while a lane may still speak of them.
    gone: HashMap<ObjectKey, u64>,
    /// Up to which version each lane has told everything.
    told: [u64; 2],
}

impl Lanes {
    pub(super) fn new(width: Width) -> Self {
        Self { width, entries: HashMap::new(), gone: HashMap::new(), told: [0; 2] }
    }

    /// How many objects there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A lane has an object in a version. A version of 0 is one that cannot be compared.
    pub(super) fn applied(&mut self, lane: Lane, key: &ObjectKey, version: u64) -> Word {
        if let Some(gone) = self.gone.get(key) {
            // The version in which a pod leaves the general lane is also that in which the own
            // lane has it finished.
            if version < *gone && version != 0 {
                return Word::Stale;
            }
            self.gone.remove(key);
        }
        match self.entries.get_mut(key) {
            Some(entry) => {
                entry.lanes |= lane.bit();
                if lane == Lane::Own {
                    entry.own = version;
                }
                if version <= entry.version && version != 0 {
                    return Word::Stale;
                }
                entry.version = version;
            }
            None => {
                let own = if lane == Lane::Own { version } else { 0 };
                let entry = Entry { version, own, lanes: lane.bit(), understood: false };
                self.entries.insert(key.clone(), entry);
            }
        }
        Word::News
    }

    /// The object's last word was understood (`Some(())`), or was not; returns whether some word
    /// about it has been.
    pub(super) fn understood(&mut self, key: &ObjectKey, now: bool) -> bool {
        self.entries.get_mut(key).is_some_and(|entry| {
            entry.understood |= now;
            entry.understood
        })
    }

    /// A lane no longer has an object since a version. Returns whether the object is gone.
    pub(super) fn deleted(&mut self, lane: Lane, key: &ObjectKey, version: u64) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            self.remember(lane, key, version);
            return false;
        };
        if entry.version > version && version != 0 {
            // The word about a predecessor of the same name, or one that another has overtaken:
            // this lane would have told of the successor after that.
            entry.lanes &= !lane.bit();
            return false;
        }
        entry.lanes &= !lane.bit();
        if lane == Lane::General && entry.lanes != 0 {
            // It may only have finished: the lane that still has it will tell.
            return false;
        }
        self.entries.remove(key);
        self.remember(lane, key, version);
        true
    }

    /// A lane is about to tell all that it has, as of a version. Where that is before what it has
    /// told already, or has an object as it was before what is known of it by then, the server was
    /// set back, by a backup perhaps: then what is known compares with nothing.
    pub(super) fn listing<'a>(
        &mut self,
        lane: Lane,
        mut items: impl Iterator<Item = (&'a ObjectKey, u64)>,
        version: u64,
    ) {
        let contradicts = |(key, at): (&ObjectKey, u64)| {
            let known = self.entries.get(key).map(|entry| entry.version);
            let latest = known.max(self.gone.get(key).copied()).unwrap_or_default();
            at != 0 && at < latest && latest <= version
        };
        if version < self.told[lane as usize] || items.any(contradicts) {
            self.entries.values_mut().for_each(|entry| (entry.version, entry.own) = (0, 0));
            self.gone.clear();
            self.told = [0; 2];
        }
    }

    /// A lane has told all that it has, as of a version. Returns what is gone.
    pub(super) fn listed(
        &mut self,
        lane: Lane,
        listed: &HashSet<ObjectKey>,
        version: u64,
    ) -> Vec<ObjectKey> {
        let missing = |(key, entry): (&ObjectKey, &mut Entry)| {
            if entry.lanes & lane.bit() == 0 || listed.contains(key) {
                return None;
            }
            entry.lanes &= !lane.bit();
            // Of what it does not have the general lane cannot tell whether it has only finished,
            // and the own lane not whether it was made anew on another node.
            let is_gone = entry.lanes == 0
                || (lane == Lane::Own
                    && entry.own >= entry.version
                    && (entry.version <= version || version == 0));
            is_gone.then(|| key.clone())
        };
        let gone: Vec<_> = self.entries.iter_mut().filter_map(missing).collect();
        for key in &gone {
            self.entries.remove(key);
            // What the own lane's list does not have may be on another node as of that version:
            // the general lane tells the end of its predecessor first.
            if lane == Lane::General {
                self.remember(lane, key, version);
            }
        }
        self.seen(lane, version);
        gone
    }

    /// A lane has told everything up to a version.
    pub(super) fn seen(&mut self, lane: Lane, version: u64) {
        let told = &mut self.told[lane as usize];
        *told = version.max(*told);
        if !self.gone.is_empty() {
            let told = match self.width {
                Width::One => u64::MAX,
                Width::Two => Lane::BOTH
                    .iter()
                    .map(|lane| self.told[*lane as usize])
                    .min()
                    .unwrap_or_default(),
            };
            self.gone.retain(|_, version| *version > told);
        }
    }

    /// An object that one lane says is gone may still be spoken of by the other.
    fn remember(&mut self, lane: Lane, key: &ObjectKey, version: u64) {
        if self.width == Width::Two && self.told[lane.other() as usize] < version {
            let gone = self.gone.entry(key.clone()).or_default();
            *gone = version.max(*gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use Lane::{General, Own};

    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey { namespace: "n".into(), name: name.into() }
    }

    fn pods() -> Lanes {
        Lanes::new(Width::Two)
    }

    #[test]
    fn the_newest_word_wins_whichever_lane_it_comes_by() {
        let mut pods = pods();
        assert_eq!(pods.applied(General, &key("a"), 5), Word::News);
        assert_eq!(pods.applied(Own, &key("a"), 4), Word::Stale);
        assert_eq!(pods.applied(Own, &key("a"), 5), Word::Stale);
        assert_eq!(pods.applied(Own, &key("a"), 12), Word::News);
        assert_eq!(pods.applied(General, &key("a"), 9), Word::Stale);
    }

    #[test]
    fn what_is_deleted_does_not_come_back_by_an_old_word() {
        let mut pods = pods();
        pods.applied(General, &key("a"), 5);
        pods.applied(Own, &key("a"), 5);
        assert!(pods.deleted(Own, &key("a"), 9));
        assert_eq!(pods.applied(General, &key("a"), 7), Word::Stale);
        assert!(!pods.deleted(General, &key("a"), 9));
        // A new one of the same name.
        assert_eq!(pods.applied(Own, &key("a"), 11), Word::News);
        assert!(!pods.deleted(General, &key("a"), 9), "the predecessor's end");
        assert_eq!(pods.len(), 1);
    }

    #[test]
    fn a_deletion_may_come_before_the_object() {
        let mut pods = pods();
        assert!(!pods.deleted(Own, &key("a"), 9));
        assert_eq!(pods.applied(General, &key("a"), 8), Word::Stale);
        assert_eq!(pods.len(), 0);
    }

    #[test]
    fn a_pod_that_finishes_is_the_own_lanes_to_tell() {
        let mut pods = pods();
        pods.applied(General, &key("a"), 5);
        pods.applied(Own, &key("a"), 5);
        assert!(!pods.deleted(General, &key("a"), 7), "only left the general lane");
        assert_eq!(pods.applied(Own, &key("a"), 7), Word::News, "finished");
        assert!(pods.deleted(Own, &key("a"), 8));
        // The same before the own lane has heard of it at all.
        pods.applied(General, &key("b"), 20);
        assert!(pods.deleted(General, &key("b"), 22));
        assert_eq!(pods.applied(Own, &key("b"), 20), Word::Stale);
        assert_eq!(pods.applied(Own, &key("b"), 22), Word::News, "finished");
    }

    #[test]
    fn a_pod_of_another_node_goes_with_the_general_lane() {
        let mut pods = pods();
        pods.applied(General, &key("a"), 5);
        assert!(pods.deleted(General, &key("a"), 7));
        assert_eq!(pods.len(), 0);
    }

    #[test]
    fn a_whole_list_ends_what_it_does_not_name() {
        let mut pods = pods();
        for name in ["both", "general", "newer"] {
            pods.applied(General, &key(name), 5);
        }
        pods.applied(Own, &key("both"), 5);
        pods.applied(Own, &key("newer"), 30);
        let listed = |names: &[&str]| names.iter().map(|name| key(name)).collect::<HashSet<_>>();
        // What the own lane has may have finished.
        assert_eq!(pods.listed(General, &listed(&[]), 10), [key("general")]);
        assert_eq!(pods.applied(Own, &key("general"), 6), Word::Stale);
        assert_eq!(pods.listed(Own, &listed(&["newer"]), 10), [key("both")]);
        // The list is older than the object.
        pods.applied(General, &key("newer"), 30);
        assert_eq!(pods.listed(Own, &listed(&[]), 20), []);
        assert_eq!(pods.len(), 1);
    }

    #[test]
    fn a_pod_made_anew_on_another_node_is_the_general_lanes() {
        let nothing = HashSet::new();
        let known = || {
            let mut pods = pods();
            pods.applied(General, &key("a"), 5);
            pods.applied(Own, &key("a"), 5);
            pods
        };
        let moved = || {
            let mut pods = known();
            assert!(!pods.deleted(General, &key("a"), 9));
            assert_eq!(pods.applied(General, &key("a"), 11), Word::News);
            pods
        };
        let mut late = moved();
        assert!(!late.deleted(Own, &key("a"), 9), "the predecessor's end");
        assert_eq!(late.listed(Own, &nothing, 20), []);
        assert!(late.deleted(General, &key("a"), 30), "nobody else has it");
        let mut listed = moved();
        assert_eq!(listed.listed(Own, &nothing, 20), [], "it is not on this node");
        assert!(listed.deleted(General, &key("a"), 30));
        // The own lane is ahead by a whole list.
        let mut ahead = known();
        assert_eq!(ahead.listed(Own, &nothing, 20), [key("a")]);
        assert!(!ahead.deleted(General, &key("a"), 9));
        assert_eq!(ahead.applied(General, &key("a"), 11), Word::News);
        assert!(ahead.deleted(General, &key("a"), 30));
    }

    #[test]
    fn what_is_gone_is_forgotten_when_both_lanes_are_past_it() {
        let mut pods = pods();
        pods.deleted(General, &key("a"), 7);
        pods.seen(General, 9);
        assert_eq!(pods.gone.len(), 1);
        pods.seen(Own, 7);
        assert_eq!(pods.gone.len(), 0);
        pods.deleted(General, &key("a"), 7);
        assert_eq!(pods.gone.len(), 0, "the other lane is past it already");
        let mut one = Lanes::new(Width::One);
        one.applied(General, &key("a"), 5);
        assert!(one.deleted(General, &key("a"), 7));
        assert_eq!(one.gone.len(), 0);
    }

    #[test]
    fn a_server_that_was_set_back_is_believed() {
        let mut one = Lanes::new(Width::One);
        one.applied(General, &key("a"), 50);
        one.seen(General, 60);
        one.listing(General, [(&key("a"), 9)].into_iter(), 10);
        assert_eq!(one.applied(General, &key("a"), 9), Word::News);
        assert_eq!(one.listed(General, &HashSet::from([key("a")]), 10), []);
        assert_eq!(one.applied(General, &key("a"), 8), Word::Stale);
    }

    #[test]
    fn a_server_that_was_set_back_and_went_on_is_believed() {
        // Its list is as of a version past all that is known, and yet has an object as it was.
        let mut changed = pods();
        changed.applied(General, &key("a"), 50);
        changed.listing(General, [(&key("b"), 60), (&key("a"), 9)].into_iter(), 70);
        assert_eq!(changed.applied(General, &key("a"), 9), Word::News);
        let mut deleted = pods();
        deleted.applied(General, &key("a"), 9);
        assert!(deleted.deleted(General, &key("a"), 50));
        deleted.listing(General, [(&key("a"), 9)].into_iter(), 70);
        assert_eq!(deleted.applied(General, &key("a"), 9), Word::News);
        // What another lane has told since the list was made is no such thing.
        let mut ahead = pods();
        ahead.applied(Own, &key("a"), 50);
        ahead.listing(General, [(&key("a"), 9)].into_iter(), 49);
        assert_eq!(ahead.applied(General, &key("a"), 9), Word::Stale);
    }

    #[test]
    fn versions_that_are_no_numbers_count_in_the_order_they_come() {
        let mut one = Lanes::new(Width::One);
        assert_eq!(one.applied(General, &key("a"), 0), Word::News);
        assert_eq!(one.applied(General, &key("a"), 0), Word::News);
        assert!(one.deleted(General, &key("a"), 0));
    }

    #[test]
    fn whether_some_word_was_understood_is_kept() {
        let mut pods = pods();
        pods.applied(Own, &key("a"), 1);
        assert!(!pods.understood(&key("a"), false));
        assert!(pods.understood(&key("a"), true));
        assert!(pods.understood(&key("a"), false), "the last good state");
        assert!(!pods.understood(&key("b"), true));
    }
}
