//! Which relays are followed: those named once and for all, and those of a file that may be changed meanwhile.
//!
//! A line of the file is a URL, and `paused` behind it where the relay is to be left alone for now; `#` begins a comment.
//! A file that cannot be read, or has a line that is no relay, changes nothing: it is said, and looked at again.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result};
use crate::relay::url::RelayUrl;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Relays to follow and relays that are paused, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) relays: Vec<RelayUrl>,
    pub(crate) paused: Vec<RelayUrl>,
}

impl Listed {
    /// Reads a file's text; a relay that is paused at one place is paused.
    fn parse(text: &str) -> Result<Self> {
        let (mut relays, mut paused): (Vec<RelayUrl>, Vec<RelayUrl>) = (Vec::new(), Vec::new());
        for (number, line) in (1..).zip(text.lines()) {
            // A URL may hold a `#`, which means nothing to a relay: only one that begins a word is a comment.
            let mut words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
            let Some(url) = words.next() else { continue };
            let wrong = |why: String| Error::new(ErrorKind::Config, format!("line {number}: {why}"));
            let url = RelayUrl::parse(url).map_err(|error| wrong(error.to_string()))?;
            let list = match (words.next(), words.next()) {
                (None, _) => &mut relays,
                (Some("paused"), None) => &mut paused,
                (Some(word), _) => return Err(wrong(format!("`{word}` is neither `paused` nor a # comment"))),
            };
            if !list.contains(&url) {
                list.push(url);
            }
        }
        relays.retain(|url| !paused.contains(url));
        Ok(Self { relays, paused })
    }
}

/// What tells that a file has been written: time and length, or the lack of it.
type Stamp = Option<(SystemTime, u64)>;

/// The relays that were named, and those of a file.
#[derive(Debug)]
pub(crate) struct Roster {
    named: Vec<RelayUrl>,
    file: Option<(PathBuf, Stamp)>,
    listed: Listed,
}

impl Roster {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// `Config` when a URL is none, when the file cannot be read or understood, or when nothing is named and no file
    /// could ever name it.
    pub(crate) async fn open(named: &[String], file: Option<&Path>) -> Result<Self> {
        let Some(path) = file else {
            let listed = Listed { relays: RelayUrl::parse_all(named)?, paused: Vec::new() };
            return Ok(Self { named: Vec::new(), file: None, listed });
        };
        let named = named.iter().map(|url| RelayUrl::parse(url)).collect::<Result<_>>()?;
        let stamp = stamp(path).await;
        let mut roster = Self { named, file: None, listed: Listed::default() };
        roster.listed = roster.read(path).await?;
        roster.file = Some((path.to_owned(), stamp));
        Ok(roster)
    }

    /// The relays to be followed now.
    pub(crate) const fn listed(&self) -> &Listed {
        &self.listed
    }

    /// Tells of every change; for ever, or not at all where relays are named once and for all.
    pub(crate) async fn tell(mut self, to: watch::Sender<Listed>) {
        loop {
            let listed = self.changed().await.clone();
            tracing::info!(relays = listed.relays.len(), paused = listed.paused.len(), "other relays are followed");
            to.send_replace(listed);
        }
    }

    /// Waits until other relays are to be followed; for ever when they are named once and for all.
    async fn changed(&mut self) -> &Listed {
        loop {
            let Some((path, seen)) = self.file.clone() else { return std::future::pending().await };
            tokio::time::sleep(LOOK_EVERY).await;
            let now = stamp(&path).await;
            if now == seen {
                continue;
            }
            self.file = Some((path.clone(), now));
            match self.read(&path).await {
                Ok(listed) if listed != self.listed => {
                    self.listed = listed;
                    return &self.listed;
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the relays stay as they were"),
            }
        }
    }

    async fn read(&self, path: &Path) -> Result<Listed> {
        let failed = |why: String| {
            Error::new(ErrorKind::Config, format!("could not read the relays of `{}`: {why}", path.display()))
        };
        let text = tokio::fs::read_to_string(path).await.map_err(|error| failed(error.to_string()))?;
        let mut listed = Listed::parse(&text).map_err(|error| failed(error.to_string()))?;
        let elsewhere = |url: &&RelayUrl| !listed.relays.contains(url) && !listed.paused.contains(url);
        let named: Vec<RelayUrl> = self.named.iter().filter(elsewhere).cloned().collect();
        listed.relays.splice(..0, named);
        Ok(listed)
    }
}

async fn stamp(path: &Path) -> Stamp {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(listed: &Listed) -> Vec<String> {
        listed.relays.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_line_is_a_relay_and_paused_ones_are_left_out() {
        let text = "# ours\nwss://a.example.org\n\n  WSS://B.example.org/ # fast\nwss://c.example.org paused # slow\n\
                    wss://a.example.org\nwss://d.example.org/#x\nwss://c.example.org\n";
        let listed = Listed::parse(text).expect("relays");
        assert_eq!(urls(&listed), ["wss://a.example.org", "wss://b.example.org", "wss://d.example.org"]);
        assert_eq!(listed.paused.len(), 1);
        assert_eq!(Listed::parse("").expect("no relay"), Listed::default());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let said = |text: &str| Listed::parse(text).expect_err("no list").to_string();
        assert!(said("wss://a.example.org\nhttp://b.example.org").starts_with("line 2: `http://b.example.org` is not"));
        assert_eq!(said("wss://a.example.org pause"), "line 1: `pause` is neither `paused` nor a # comment");
        assert!(said("wss://a.example.org paused now").contains("`paused`"));
    }

    #[tokio::test]
    async fn a_file_that_is_written_again_changes_the_relays_and_a_wrong_one_does_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("relays.txt");
        let write = |text: &str| std::fs::write(&path, text).expect("written");
        write("wss://a.example.org\n");
        let named = ["wss://named.example.org".to_owned()];
        let mut roster = Roster::open(&named, Some(&path)).await.expect("relays");
        assert_eq!(urls(roster.listed()), ["wss://named.example.org", "wss://a.example.org"]);
        write("wss://a.example.org\nwss://b.example.org\n");
        assert_eq!(roster.changed().await.relays.len(), 3);
        write("what is this\n");
        let wrong = tokio::time::timeout(LOOK_EVERY * 3, roster.changed()).await;
        assert!(wrong.is_err(), "a wrong file changes nothing");
        assert_eq!(roster.listed().relays.len(), 3);
        write("wss://b.example.org paused\n");
        assert_eq!(urls(roster.changed().await), ["wss://named.example.org"]);
        write("wss://named.example.org/ paused\nwss://b.example.org\n");
        assert_eq!(urls(roster.changed().await), ["wss://b.example.org"], "named or not, it is paused");
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_or_no_relay_at_all_is_refused() {
        let none = Roster::open(&[], Some(Path::new("/nowhere/relays.txt"))).await.expect_err("no file");
        assert!(none.to_string().starts_with("could not read the relays of `/nowhere/relays.txt`: No such file"));
        assert!(Roster::open(&[], None).await.expect_err("no relay").to_string().contains("no relay is named"));
    }
}
