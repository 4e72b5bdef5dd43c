//! Sets of positions as sorted ranges.

use std::ops::Range;

/// Disjoint, sorted ranges of song positions, in samples. Ranges that touch are one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Range<i64>>);

impl Ranges {
    /// Adds a range.
    pub fn add(&mut self, range: Range<i64>) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|held| held.end < range.start);
        let last = self.0.partition_point(|held| held.start <= range.end);
        let mut joined = range;
        if let (Some(head), Some(tail)) = (self.0.get(first), self.0.get(last.wrapping_sub(1)))
            && first < last
        {
            joined = joined.start.min(head.start)..joined.end.max(tail.end);
        }
        self.0.splice(first..last, [joined]);
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Range<i64>> + DoubleEndedIterator {
        self.0.iter()
    }

    /// Whether all of `range` is in the set.
    pub fn contains(&self, range: &Range<i64>) -> bool {
        let held = self.0.get(self.0.partition_point(|held| held.end <= range.start));
        range.is_empty() || held.is_some_and(|held| held.start <= range.start && range.end <= held.end)
    }

    /// Number of positions.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|range| range.end.abs_diff(range.start)).sum()
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether there is no position.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_hold_exactly_what_was_added(added in prop::collection::vec((-50i64..50, 0i64..20), 0..20)) {
            let mut ranges = Ranges::default();
            let mut held = std::collections::BTreeSet::new();
            for (start, length) in added {
                ranges.add(start..start + length);
                held.extend(start..start + length);
            }
            prop_assert_eq!(ranges.iter().cloned().flatten().collect::<Vec<_>>(), held.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(ranges.total(), held.len() as u64);
            let list: Vec<_> = ranges.iter().cloned().collect();
            prop_assert!(list.windows(2).all(|pair| pair[0].end < pair[1].start));
            for start in -55..55 {
                for end in start..start + 12 {
                    prop_assert_eq!(ranges.contains(&(start..end)), (start..end).all(|x| held.contains(&x)));
                }
            }
        }
    }
}
