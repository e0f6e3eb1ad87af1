//! The name that was probably meant.

/// The one of `names` that is nearest to `wrong`, if one is near: for messages about a wrong name.
#[must_use]
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_ascii_lowercase();
    // A third of its letters may be wrong.
    let most = (wrong.chars().count() / 3).max(1);
    let near = names.into_iter().map(|name| (distance(&wrong, &name.to_ascii_lowercase()), name));
    near.filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|n| n.1)
}

/// ` (did you mean X?)`, or nothing.
#[must_use]
pub fn hint<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wrong, names).map(|name| format!(" (did you mean {name}?)")).unwrap_or_default()
}

/// How many letters must be inserted, left out, changed or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let changed = row[j] + usize::from(x != y);
            let mut best = changed.min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_letters() {
        for (a, b, expected) in
            [("", "", 0), ("abc", "", 3), ("abc", "abd", 1), ("abc", "acb", 1), ("abc", "xabcx", 2)]
        {
            assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}");
        }
    }

    #[test]
    fn only_what_is_near_is_named() {
        let names = ["source_pod", "source_port", "destination_pod"];
        assert_eq!(nearest("sourcepod", names), Some("source_pod"));
        assert_eq!(nearest("SOURCE_POT", names), Some("source_pod"));
        assert_eq!(nearest("verdict", names), None);
        assert_eq!(hint("surce_port", names), " (did you mean source_port?)");
        assert_eq!(hint("x", names), "");
    }
}
