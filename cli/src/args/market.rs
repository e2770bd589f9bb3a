//! `tidegate global | collections | all WINDOW …`: the commands of opensea-data-streaming, each short for `batch` or
//! `stream` of the job of that name.
//!
//! Which of the two is said by the window's length, as it is there. The rest of the line goes to that command as it is,
//! but for what has another name here.

use event::Span;

use crate::error::Failure;
use crate::master::Master;

/// Windows that are read from the lake, once.
const BATCH: [&str; 6] = ["all time", "14 days", "7 days", "1 day", "12 hours", "1 hour"];
/// Windows that follow the topic.
const STREAM: [&str; 4] = ["30 minutes", "5 minutes", "1 minute", "30 seconds"];

/// A job of the market, as a batch or as a stream by the length of its window.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A batch: 'all time', '14 days', '7 days', '1 day', '12 hours', '1 hour'.
A stream: '30 minutes', '5 minutes', '1 minute', '30 seconds'.
`tidegate batch` and `tidegate stream` take any window.

Examples:
  tidegate global '1 hour' --kafka-brokers kafka:19092 \\
    --raw-events-s3-uri s3a://raw-data/topics/OpenSeaRawEvents \\
    --kafka-topic OpenSeaEnrichedGlobalEvents
  tidegate all '1 minute' --watermark-duration '1 minute' --debug")]
pub(crate) struct Args {
    /// Length of a window, which says whether it is a batch or a stream
    window: String,

    /// Options of `tidegate batch` or `tidegate stream`; of `all` also --global-kafka-topic and
    /// --collections-kafka-topic
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    rest: Vec<String>,
}

/// What the environment said to the program that these commands come from.
#[derive(Debug, Default)]
pub(super) struct Environment {
    /// `OPENSEA_MONITORING_LOG_LEVEL`.
    pub(super) log_level: Option<String>,
    /// `OPENSEA_MONITORING_SPARK_MASTER`.
    pub(super) master: Option<String>,
}

impl Environment {
    pub(super) fn read() -> Self {
        let of = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        Self { log_level: of("OPENSEA_MONITORING_LOG_LEVEL"), master: of("OPENSEA_MONITORING_SPARK_MASTER") }
    }
}

/// A command line without the program's name, and what to tell about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Meant {
    pub(super) words: Vec<String>,
    pub(super) notes: Vec<String>,
}

impl Args {
    /// The command that is meant.
    ///
    /// # Errors
    /// A wrong command line for a window that is not one of the ten, or an option that says nothing here.
    pub(super) fn meant(self, job: &str, log_level: Option<&str>, from: &Environment) -> Result<Meant, Failure> {
        let command = command_for(job, &self.window)?;
        let mut options = Options::taken(self.rest)?;
        let mut words: Vec<String> = [command, job, &self.window].map(str::to_owned).into();
        let mut notes = vec![format!("`{job}` over '{}' is a {command}: tidegate {command} {job} '{0}'", self.window)];
        match job {
            "all" if options.topic.is_some() => {
                return Err(Failure::usage("`all` writes to two topics, and --kafka-topic names one")
                    .hint("use --global-kafka-topic and --collections-kafka-topic"));
            }
            "all" => {
                for (name, topic) in [("global", options.global.take()), ("collections", options.collections.take())] {
                    words.extend(topic.into_iter().flat_map(|topic| ["--var".into(), format!("{name}_topic={topic}")]));
                }
            }
            _ => {
                let own = if job == "global" { options.global.take() } else { options.collections.take() };
                words
                    .extend(own.or(options.topic.take()).into_iter().flat_map(|topic| ["--kafka-topic".into(), topic]));
            }
        }
        let has = |rest: &[String], names: &[&str]| {
            rest.iter().any(|word| names.iter().any(|name| word == name || word.starts_with(&format!("{name}="))))
        };
        if let Some(level) = log_level.or(from.log_level.as_deref())
            && !has(&options.rest, &["-l", "--log-level"])
        {
            words.extend(["--log-level".to_owned(), level.to_owned()]);
        }
        if let Some(master) = from.master.as_deref().filter(|_| !has(&options.rest, &["--threads", "--master"])) {
            let not_used = |why: &str| format!("OPENSEA_MONITORING_SPARK_MASTER={master} is not used: {why}");
            match (master.parse(), command) {
                (Ok(Master::Local(threads)), _) => {
                    words.extend(threads.into_iter().flat_map(|threads| ["--threads".to_owned(), threads.to_string()]));
                }
                (Ok(cluster), "batch") => words.extend(["--master".to_owned(), cluster.to_string()]),
                (Ok(_), _) => notes.push(not_used("a stream runs in this process, on --threads N")),
                (Err(why), _) => notes.push(not_used(&why)),
            }
        }
        words.append(&mut options.rest);
        Ok(Meant { words, notes })
    }
}

/// `batch` or `stream`.
fn command_for(job: &str, window: &str) -> Result<&'static str, Failure> {
    let length = Span::parse_window(window).map_err(Failure::usage)?;
    let among = |windows: &[&str]| windows.iter().any(|text| Span::parse_window(text) == Ok(length));
    if among(&BATCH) {
        return Ok("batch");
    }
    if among(&STREAM) {
        return Ok("stream");
    }
    Err(Failure::usage(format!("`{job}` over '{window}' may be a batch or a stream"))
        .hint(format!("say which: `tidegate batch {job} '{window}'` or `tidegate stream {job} '{window}'`")))
}

/// The options that have another name here, and the rest.
#[derive(Debug, Default)]
struct Options {
    topic: Option<String>,
    global: Option<String>,
    collections: Option<String>,
    rest: Vec<String>,
}

impl Options {
    fn taken(words: Vec<String>) -> Result<Self, Failure> {
        let mut options = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let place = match name {
                "--kafka-topic" => &mut options.topic,
                "--global-kafka-topic" => &mut options.global,
                "--collections-kafka-topic" => &mut options.collections,
                // A first start begins there anyway, and a later one where the one before ended.
                "--start-from-beginning" => continue,
                _ => {
                    options.rest.push(word);
                    continue;
                }
            };
            let missing = || Failure::usage(format!("{name} names no topic"));
            *place = Some(value.or_else(|| words.next()).ok_or_else(missing)?);
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(job: &str, line: &str, from: &Environment) -> Result<Meant, Failure> {
        let mut words = line.split('|').map(str::to_owned);
        Args { window: words.next().unwrap(), rest: words.collect() }.meant(job, None, from)
    }

    fn words(job: &str, line: &str) -> String {
        meant(job, line, &Environment::default()).unwrap_or_else(|_| panic!("{line}")).words.join("|")
    }

    #[test]
    fn the_window_says_whether_it_is_a_batch_or_a_stream() {
        for (windows, command) in [(&BATCH[..], "batch"), (&STREAM[..], "stream")] {
            for window in windows {
                assert_eq!(words("global", window), format!("{command}|global|{window}"));
            }
        }
        assert_eq!(words("all", "all_time"), "batch|all|all_time");
        assert_eq!(words("all", "60 seconds"), "stream|all|60 seconds");
        for window in ["2 hours", "10 minutes", "1 fortnight"] {
            assert!(meant("global", window, &Environment::default()).is_err(), "{window}");
        }
    }

    #[test]
    fn topics_go_where_they_are_meant_to() {
        for (job, line, want) in [
            ("global", "1 hour|--kafka-topic|a|-l|INFO", "batch|global|1 hour|--kafka-topic|a|-l|INFO"),
            ("collections", "1 hour|--kafka-topic=a|--debug", "batch|collections|1 hour|--kafka-topic|a|--debug"),
            ("global", "1 hour|--kafka-topic|a|--global-kafka-topic|b", "batch|global|1 hour|--kafka-topic|b"),
            (
                "all",
                "1 minute|--start-from-beginning|--global-kafka-topic|a|--collections-kafka-topic|b",
                "stream|all|1 minute|--var|global_topic=a|--var|collections_topic=b",
            ),
        ] {
            assert_eq!(words(job, line), want);
        }
        assert!(meant("all", "1 hour|--kafka-topic|a", &Environment::default()).is_err());
        assert!(meant("global", "1 hour|--kafka-topic", &Environment::default()).is_err());
    }

    #[test]
    fn the_environment_gives_way_to_the_command_line() {
        let from = Environment { log_level: Some("DEBUG".into()), master: Some("local[3]".into()) };
        let of = |line: &str| meant("global", line, &from).map(|meant| meant.words.join("|")).unwrap_or_default();
        assert_eq!(of("1 hour"), "batch|global|1 hour|--log-level|DEBUG|--threads|3");
        assert_eq!(of("1 hour|-l|INFO|--threads=2"), "batch|global|1 hour|-l|INFO|--threads=2");
        let elsewhere = |master: &str, line: &str| {
            let from = Environment { log_level: None, master: Some(master.to_owned()) };
            let said = meant("global", line, &from).unwrap();
            (said.words[3..].join("|"), said.notes.get(1).cloned().unwrap_or_default())
        };
        for (master, line, words, note) in [
            ("local", "1 hour", "--threads|1", ""),
            ("local[*]", "1 hour", "", ""),
            ("tidegate://a:1", "1 hour", "--master|tidegate://a:1", ""),
            ("tidegate://a:1", "1 minute", "", "a stream runs in this process"),
            ("spark://spark:7077", "1 hour", "", "tidegate cluster worker"),
            ("local[x]", "1 hour", "", "local[*]"),
        ] {
            let (said, noted) = elsewhere(master, line);
            assert_eq!(said, words, "{master}");
            assert!(noted.contains(note) && noted.is_empty() == note.is_empty(), "{master}: {noted}");
        }
    }
}
