//! Real texts with edits: inputs that are nearly right, which is where readers break. Proptest shrinks the edits, so a
//! failure shows the least of them; `PROPTEST_CASES` makes a short run a long one.

use proptest::collection::vec;
use proptest::prelude::*;

/// One edit, at a place that is given as a share of the length.
#[derive(Clone, Debug)]
enum Edit {
    Flip(u8),
    Insert(Vec<u8>),
    /// Takes so many pieces out.
    Remove(usize),
    /// Says so many pieces twice.
    Repeat(usize),
    /// Ends here.
    Cut,
}

/// One of `seeds` with up to four edits, byte by byte; `tokens` are put in as they stand.
pub fn bytes(seeds: Vec<Vec<u8>>, tokens: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let token = proptest::sample::select(tokens).prop_map(|token| token.as_bytes().to_vec());
    let edit = prop_oneof![
        3 => (0..8_u8).prop_map(|bit| Edit::Flip(1 << bit)),
        4 => token.prop_map(Edit::Insert),
        2 => (1..9_usize).prop_map(Edit::Remove),
        1 => (1..40_usize).prop_map(Edit::Repeat),
        1 => Just(Edit::Cut),
    ];
    (proptest::sample::select(seeds), vec((0..1_000_usize, edit), 0..5)).prop_map(|(mut text, edits)| {
        for (share, edit) in edits {
            let at = share * text.len() / 1_000;
            match edit {
                Edit::Flip(bit) => text.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= bit),
                Edit::Insert(token) => drop(text.splice(at..at, token)),
                other => pieces(&mut text, at, &other),
            }
        }
        text
    })
}

/// One of `seeds`, cut into words, with up to four edits; words of all seeds and `tokens` are put in.
pub fn words(seeds: &[String], tokens: &[&str]) -> impl Strategy<Value = String> + use<> {
    let seeds: Vec<Vec<String>> = seeds.iter().map(|seed| split(seed)).collect();
    let mut pool: Vec<String> = seeds.iter().flatten().cloned().chain(tokens.iter().map(ToString::to_string)).collect();
    pool.sort_unstable();
    pool.dedup();
    let edit = prop_oneof![
        4 => proptest::sample::select(pool).prop_map(|word| Edit::Insert(word.into_bytes())),
        3 => (1..4_usize).prop_map(Edit::Remove),
        1 => (1..20_usize).prop_map(Edit::Repeat),
        1 => Just(Edit::Cut),
    ];
    (proptest::sample::select(seeds), vec((0..1_000_usize, edit, any::<bool>()), 0..5)).prop_map(
        |(mut words, edits)| {
            for (share, edit, instead) in edits {
                let at = share * words.len() / 1_000;
                match edit {
                    Edit::Insert(word) => {
                        let until = if instead { (at + 1).min(words.len()) } else { at };
                        let word = String::from_utf8(word).expect("a word");
                        drop(words.splice(at..until, [word]));
                    }
                    other => pieces(&mut words, at, &other),
                }
            }
            words.concat()
        },
    )
}

fn pieces<T: Clone>(text: &mut Vec<T>, at: usize, edit: &Edit) {
    let until = |count: usize| (at + count).min(text.len());
    match edit {
        Edit::Remove(count) => drop(text.drain(at..until(*count))),
        Edit::Repeat(count) => {
            let again = text[at..until(*count)].to_vec();
            drop(text.splice(at..at, again));
        }
        Edit::Cut => text.truncate(at),
        Edit::Flip(_) | Edit::Insert(_) => {}
    }
}

/// Runs of letters and digits, and everything else by the character; together they are the text.
fn split(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut inside = false;
    for c in text.chars() {
        let letter = c.is_alphanumeric() || c == '_';
        match words.last_mut() {
            Some(word) if letter && inside => word.push(c),
            _ => words.push(c.to_string()),
        }
        inside = letter;
    }
    words
}
