//! `--sink postgres://…`, and `tidegate sink JOB`: the rows of an output topic into tables.
//!
//! What libpq reads of the environment for a password is read here: PGPASSWORD, PGPASSFILE, HOME.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use event::Clock;
use processor::Job;
use processor::database::{Database, End, follow, followers, topics};
use tokio_util::sync::CancellationToken;

use super::Mode;
use crate::error::Failure;
use crate::job::JobArgs;
use crate::place::LogArgs;
use crate::progress::{counted, note};

/// A URL that may hold a password: no error of the command line repeats it.
#[derive(Clone)]
pub(crate) struct SinkUrl(String);

impl FromStr for SinkUrl {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for SinkUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SinkUrl(…)")
    }
}

impl SinkUrl {
    /// The database, with a password from where libpq would look for one.
    pub(crate) fn database(&self) -> Result<Database, Failure> {
        let database = Database::parse(&self.0)?;
        let Some(wanted) = database.lacks_password() else { return Ok(database) };
        let given = std::env::var("PGPASSWORD").ok().filter(|password| !password.is_empty());
        Ok(match given.or_else(|| from_pgpass(&wanted)) {
            Some(password) => database.with_password(&password),
            None => database,
        })
    }
}

fn from_pgpass(wanted: &[String; 4]) -> Option<String> {
    let named = std::env::var_os("PGPASSFILE").map(PathBuf::from);
    let path = named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".pgpass")))?;
    let text = std::fs::read_to_string(&path).ok()?;
    if others_may_read(&path) {
        tracing::warn!(file = %path.display(), "the password file is not used: others than its owner may read it");
        return None;
    }
    password_in(&text, wanted)
}

#[cfg(unix)]
fn others_may_read(path: &std::path::Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn others_may_read(_path: &std::path::Path) -> bool {
    false
}

/// The password of the first line `host:port:database:user:password` that fits; `*` fits all, a backslash takes the
/// next character as it is.
fn password_in(text: &str, wanted: &[String; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = vec![String::new()];
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            match c {
                ':' if fields.len() < 5 => fields.push(String::new()),
                '\\' => fields.last_mut()?.extend(chars.next()),
                c => fields.last_mut()?.push(c),
            }
        }
        let password = fields.pop().filter(|_| fields.len() == 4)?;
        fields.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted).then_some(password)
    })
}

/// Puts the rows that a job writes to its topic into tables of PostgreSQL, as they come.
///
/// Each record counts exactly once: rows and the position in the topic are one
/// transaction of the database. A table that is not there is made. `stream --sink` does
/// the same beside the job; here the two are apart.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate sink kinds --kafka-topic nostr-kinds --sink postgres://me@db/rows
  tidegate sink kinds --kafka-topic nostr-kinds --until-latest \\
    --sink 'postgres://me@db/rows?sslmode=verify-full'
  tidegate explain kinds --postgres-ddl")]
pub(crate) struct SinkArgs {
    #[command(flatten)]
    job: JobArgs,

    /// Where the tables are: postgres://user@host:port/database; a password that is not in it comes from PGPASSWORD or
    /// a pgpass file
    #[arg(long, value_name = "URL")]
    sink: SinkUrl,

    /// The topic that the job writes to [default: the one that `stream --sink` writes to where none is named]
    #[arg(long, value_name = "TOPIC")]
    kafka_topic: Option<String>,

    /// As the job's: append, or update, which keeps in a column `final` which rows are final
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Mode::Append, hide_possible_values = true)]
    output_mode: Mode,

    /// Stop when what is in the topic now is in the tables
    #[arg(long)]
    until_latest: bool,

    #[command(flatten, next_help_heading = "Log")]
    log: LogArgs,
}

impl SinkArgs {
    /// Whether it runs until it is told to stop.
    pub(crate) const fn service(&self) -> bool {
        !self.until_latest
    }
}

/// Follows the topics of the job.
pub(crate) async fn run(args: SinkArgs, shutdown: CancellationToken) -> Result<(), Failure> {
    let updates = match args.output_mode {
        Mode::Append => false,
        Mode::Update => true,
        Mode::Complete => return Err(Failure::usage("a table is written by append or update")),
    };
    let job = args.job.plan().await?;
    let clock = Clock::system();
    let database = args.sink.database()?;
    let log = args.log.open(&clock).await?;
    let topics = topics(&job, args.kafka_topic.as_deref());
    for topic in &topics {
        log.ranges(topic).await?;
    }
    let followers = followers(&log, &database, &job, &topics, updates, &clock).await?;
    let end = if args.until_latest { End::Latest } else { End::Never };
    let done = follow(followers, end, shutdown).await?;
    note(&format!("{} read, {} written", counted(done.records, "record"), counted(done.written, "row")));
    Ok(())
}

/// The definitions of the tables of a job, and of the one that the sink keeps for itself.
pub(crate) fn definitions(job: &Job, mode: Mode) -> Result<String, Failure> {
    let tables = processor::database::definitions(job, mode == Mode::Update)?;
    Ok(format!("{tables}\n-- How far each topic is in its table.\n{}", processor::database::positions_definition()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pgpass_file_is_read_as_libpq_reads_it() {
        let text = "# hosts\nother:*:*:me:no\ndb:5432:ro\\:ws:me:a\\:b\\\\c:d\n*:*:*:*:last\n";
        let wanted = |host: &str| [host, "5432", "ro:ws", "me"].map(str::to_owned);
        assert_eq!(password_in(text, &wanted("db")).as_deref(), Some("a:b\\c:d"));
        assert_eq!(password_in(text, &wanted("host")).as_deref(), Some("last"));
        assert_eq!(password_in("db:5432:rows:me\n", &wanted("db")), None);
    }

    #[test]
    fn a_url_shows_nothing_of_itself() {
        let url: SinkUrl = "postgres://me:hush@host/rows".parse().expect("any text");
        assert!(!format!("{url:?}").contains("hush"));
    }
}
