//! Sets of which nearly all have one member, and of which there are very many: a node of a tree has
//! room for eleven.

/// Up to so many members room is made for one at a time.
const FEW: usize = 4;

/// A set, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Few<T>(Vec<T>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord> Few<T> {
    /// Takes a member in, unless it is there.
    pub(super) fn insert(&mut self, member: T) {
        if let Err(at) = self.0.binary_search(&member) {
            if self.0.len() < FEW {
                self.0.reserve_exact(1);
            }
            self.0.insert(at, member);
        }
    }

    /// Takes a member out, if it is there.
    pub(super) fn remove(&mut self, member: &T) {
        if let Ok(at) = self.0.binary_search(member) {
            self.0.remove(at);
        }
    }

    pub(super) fn first(&self) -> Option<&T> {
        self.0.first()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_there_once_and_in_order() {
        let mut few = Few::default();
        for member in [3, 1, 2, 3, 1] {
            few.insert(member);
        }
        assert_eq!((few.first(), few.len()), (Some(&1), 3));
        few.remove(&1);
        few.remove(&7);
        assert_eq!(few.into_iter().copied().collect::<Vec<_>>(), [2, 3]);
        few.remove(&2);
        few.remove(&3);
        assert!(few.is_empty() && few.first().is_none());
    }

    #[test]
    fn one_member_has_room_for_one() {
        let mut few = Few::default();
        few.insert(1);
        assert_eq!(few.0.capacity(), 1);
        (0..100).for_each(|member| few.insert(member));
        assert_eq!(few.len(), 100);
    }
}
