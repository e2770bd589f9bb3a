//! Which kinds are asked for: `1,7,5000-6999`. Pure; knows nothing of filters on the wire.

use std::fmt;
use std::str::FromStr;

/// A set of kinds, as ranges; the default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// Sorted, apart from each other, both ends inclusive; none means all.
    ranges: Option<Vec<(u16, u16)>>,
}

impl Kinds {
    /// All kinds.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Parses kinds and inclusive ranges separated by commas: `1,7,5000-6999`.
    ///
    /// # Errors
    /// A sentence that names the part that is no kind, and what would do.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut ranges = text.split(',').map(|part| range(part.trim())).collect::<Result<Vec<_>, _>>()?;
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if u32::from(first) <= u32::from(before.1) + 1 => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Ok(Self { ranges: Some(merged) })
    }

    /// Ranges in ascending order, apart from each other, both ends inclusive; none when all kinds are asked for.
    #[must_use]
    pub fn ranges(&self) -> Option<&[(u16, u16)]> {
        self.ranges.as_deref()
    }

    /// Whether `kind` is asked for.
    #[must_use]
    pub fn contains(&self, kind: u16) -> bool {
        let Some(ranges) = &self.ranges else { return true };
        let after = ranges.partition_point(|(first, _)| *first <= kind);
        after > 0 && kind <= ranges[after - 1].1
    }

    /// Every kind by itself, ascending, as a relay's filter wants it; none when all kinds are asked for or when there
    /// are more than `max`.
    #[must_use]
    pub fn list(&self, max: usize) -> Option<Vec<u16>> {
        let ranges = self.ranges.as_ref()?;
        let count: usize = ranges.iter().map(|(first, last)| usize::from(last - first) + 1).sum();
        (count <= max).then(|| ranges.iter().flat_map(|(first, last)| *first..=*last).collect())
    }
}

impl FromStr for Kinds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(ranges) = &self.ranges else { return f.write_str("all") };
        for (at, (first, last)) in ranges.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

fn range(part: &str) -> Result<(u16, u16), String> {
    let refused = || format!("`{part}` is not a kind: use numbers from 0 to 65535 and ranges, as in 1,7,5000-6999");
    let kind = |text: &str| text.trim().parse::<u16>().map_err(|_| refused());
    match part.split_once('-') {
        None => kind(part).map(|one| (one, one)),
        Some((first, last)) => match (kind(first)?, kind(last)?) {
            (first, last) if first <= last => Ok((first, last)),
            _ => Err(format!("the range `{part}` is empty: write the smaller kind first")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_ranges_are_read_and_merged() {
        let kinds = Kinds::parse("7, 1,5000-5002,5002-5004,5005").expect("kinds");
        assert_eq!(kinds.to_string(), "1,7,5000-5005");
        assert_eq!(kinds.list(8), Some(vec![1, 7, 5000, 5001, 5002, 5003, 5004, 5005]));
        assert_eq!(kinds.list(7), None);
        for kind in [1, 7, 5000, 5005] {
            assert!(kinds.contains(kind), "{kind}");
        }
        for kind in [0, 2, 6, 8, 4999, 5006, 65535] {
            assert!(!kinds.contains(kind), "{kind}");
        }
    }

    #[test]
    fn all_kinds_have_no_list() {
        assert!(Kinds::all().contains(0) && Kinds::all().contains(65535));
        assert_eq!(Kinds::all().list(usize::MAX), None);
        assert!(Kinds::parse("0-65535").expect("kinds").contains(65535));
    }

    #[test]
    fn what_is_no_kind_is_named() {
        for text in ["", "1,,2", "x", "-1", "65536", "1-", "1-2-3"] {
            assert!(Kinds::parse(text).is_err(), "{text}");
        }
        assert!(Kinds::parse("1,note").is_err_and(|why| why.contains("`note`")));
        assert!(Kinds::parse("9-3").is_err_and(|why| why.contains("smaller kind first")));
    }
}
