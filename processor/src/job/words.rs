//! DataFusion's planner says what is wrong with a query; here it is said in our words. Pure text to text.

/// A planner's message, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// What is wrong, lower-case, on one line.
    pub(super) message: String,
    /// What the person might do.
    pub(super) hint: Option<String>,
    /// Line and column, where the text itself names them.
    pub(super) place: Option<(u64, u64)>,
}

/// Prefixes that name DataFusion's sort of error, which help nobody.
const SORTS: [&str; 7] = [
    "Error during planning: ",
    "Schema error: ",
    "This feature is not implemented: ",
    "SQL error: ",
    "Invalid or Unsupported Configuration: ",
    "Execution error: ",
    "Internal error: ",
];

/// Says it again.
pub(super) fn in_our_words(text: &str) -> Words {
    // Which rule of the planner has stumbled helps nobody, nor whom to tell of a mistake in a query.
    let text = text.rsplit_once("\ncaused by\n").map_or(text, |(_, cause)| cause);
    let mut text = text.split_once("\nThis issue was likely caused by a bug").map_or(text, |(said, _)| said).to_owned();
    for sort in SORTS {
        text = text.replace(sort, "");
    }
    for wrapper in ["ParserError(\"", "TokenizerError(\""] {
        if let Some(inner) = text.strip_prefix(wrapper) {
            return syntax(inner.trim_end_matches("\")").trim_end_matches('"'));
        }
    }
    known(&text).unwrap_or_else(|| Words { message: one_line(&text), ..Words::default() })
}

/// `Expected: …, found: … at Line: 1, Column: 1`
pub(super) fn syntax(text: &str) -> Words {
    let place = |tail: &str| {
        let (line, column) = tail.split_once(", Column: ")?;
        Some((line.trim().parse().ok()?, column.trim().parse().ok()?))
    };
    match text.rsplit_once(" at Line: ") {
        Some((message, tail)) => Words { message: one_line(message), place: place(tail), hint: None },
        None => Words { message: one_line(text), ..Words::default() },
    }
}

fn known(text: &str) -> Option<Words> {
    if let Some(rest) = text.strip_prefix("No field named ") {
        let (name, rest) = rest.split_once(['\n', ' ']).unwrap_or((rest, ""));
        let hint = rest.split_once("Valid fields are ").map(|(_, fields)| {
            let fields: Vec<String> = fields.trim_end_matches('.').split(", ").map(bare).collect();
            format!("the columns are {}", fields.join(", "))
        });
        let name = bare(name.trim_end_matches('.'));
        return Some(Words { message: format!("there is no column `{name}`"), hint, place: None });
    }
    if let Some(name) = text.strip_prefix("table '").and_then(|rest| rest.strip_suffix("' not found")) {
        let hint = "the tables are `events` and `sightings`; their columns are in jobs/README.md".to_owned();
        return Some(Words { message: format!("there is no table `{}`", bare(name)), hint: Some(hint), place: None });
    }
    if let Some(rest) = text.strip_prefix("Invalid function '") {
        let (name, rest) = rest.split_once('\'')?;
        let guess = rest.split_once("Did you mean '").and_then(|(_, rest)| rest.split_once('\''));
        let hint = guess.map(|(guess, _)| format!("did you mean `{guess}`?"));
        return Some(Words { message: format!("there is no function `{name}`"), hint, place: None });
    }
    let (_, rest) = text.split_once("column \"")?;
    let (name, rest) = rest.split_once('"')?;
    rest.contains("must appear in the GROUP BY").then(|| Words {
        message: format!("column `{}` is neither grouped by nor in an aggregate function", bare(name)),
        hint: Some(format!("add it to GROUP BY, or take one of its values, as min({})", bare(name))),
        place: None,
    })
}

/// A name without what stands before its last dot, and without quotes.
fn bare(name: &str) -> String {
    name.trim().rsplit('.').next().unwrap_or(name).trim_matches(['"', '\'', '`']).to_owned()
}

fn one_line(text: &str) -> String {
    let line = text
        .lines()
        .map(|line| line.trim().trim_end_matches('.'))
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ");
    let mut letters = line.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            format!("{}{}", first.to_lowercase(), &line[first.len_utf8()..])
        }
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_mistakes_are_said_in_our_words() {
        for (text, message, hint) in [
            (
                "Schema error: No field named knid. Did you mean 'events.id'?.\nValid fields are events.id, events.kind.",
                "there is no column `knid`",
                Some("the columns are id, kind"),
            ),
            (
                "Schema error: No field named x.\nValid fields are events.id",
                "there is no column `x`",
                Some("the columns are id"),
            ),
            (
                "Error during planning: table 'datafusion.public.event' not found",
                "there is no table `event`",
                Some("the tables are `events` and `sightings`; their columns are in jobs/README.md"),
            ),
            (
                "Error during planning: Invalid function 'cuont'.\nDid you mean 'cot'?",
                "there is no function `cuont`",
                Some("did you mean `cot`?"),
            ),
            (
                "Error during planning: Column in SELECT must be in GROUP BY or an aggregate function: While expanding \
                 wildcard, column \"events.kind\" must appear in the GROUP BY clause or must be part of an aggregate function",
                "column `kind` is neither grouped by nor in an aggregate function",
                Some("add it to GROUP BY, or take one of its values, as min(kind)"),
            ),
            ("Error during planning: Something new.\nIt says.", "something new; It says", None),
            (
                "type_coercion\ncaused by\nInternal error: Failed to coerce.\nThis issue was likely caused by a bug in X.",
                "failed to coerce",
                None,
            ),
            ("SQL is odd", "SQL is odd", None),
        ] {
            let words = in_our_words(text);
            assert_eq!((words.message.as_str(), words.hint.as_deref()), (message, hint), "{text}");
        }
    }

    #[test]
    fn a_parser_says_where() {
        let text = "SQL error: ParserError(\"Expected: an SQL statement, found: SELEC at Line: 1, Column: 1\")";
        let words = in_our_words(text);
        assert_eq!(words.message, "expected: an SQL statement, found: SELEC");
        assert_eq!(words.place, Some((1, 1)));
    }
}
