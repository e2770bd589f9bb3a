//! Reading tags: values by the tag's name.
//!
//! Strangers write tags, so nothing is taken for granted: a tag may be empty or a name alone. Names are compared as
//! they stand, values are given as they stand.

/// Element 1 of every tag whose element 0 is exactly `name` and that has at least two elements, in order.
///
/// ```
/// let tags = [vec!["t".to_owned(), "rust".to_owned()], vec!["t".to_owned()], vec![]];
/// assert_eq!(event::tags::values(&tags, "t").collect::<Vec<_>>(), ["rust"]);
/// ```
pub fn values<'a>(tags: &'a [Vec<String>], name: &str) -> impl DoubleEndedIterator<Item = &'a str> {
    tags.iter().filter_map(move |tag| match tag.as_slice() {
        [first, value, ..] if first == name => Some(value.as_str()),
        _ => None,
    })
}

/// The first of [`values`].
#[must_use]
pub fn first<'a>(tags: &'a [Vec<String>], name: &str) -> Option<&'a str> {
    values(tags, name).next()
}

/// The last of [`values`]: the target of a reaction is the last `e`.
#[must_use]
pub fn last<'a>(tags: &'a [Vec<String>], name: &str) -> Option<&'a str> {
    values(tags, name).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tags_with_the_exact_name_and_a_value_count() {
        let tags = [&["e", "1"][..], &["e"], &[], &["E", "2"], &["", "3"], &["e", "", "x"], &["e", "4", "y"], &["e"]];
        let tags: Vec<Vec<String>> = tags.iter().map(|tag| tag.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(values(&tags, "e").collect::<Vec<_>>(), ["1", "", "4"]);
        assert_eq!((first(&tags, "e"), last(&tags, "e")), (Some("1"), Some("4")));
        assert_eq!((first(&tags, ""), last(&tags, "t")), (Some("3"), None));
    }
}
