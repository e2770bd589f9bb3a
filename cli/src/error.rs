//! Why a command ended, as a person reads it and as a script sees it: message, hint, caret, exit code.
//!
//! Every error of the other crates becomes a [`Failure`] here, and is printed once.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use crate::progress;

/// What the exit code of a failed command says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Something went wrong that no other code names.
    Failed = 1,
    /// The command line, a setting or a job is wrong.
    Usage = 2,
    /// A broker, relay, store or database cannot be reached, or takes nothing.
    Unavailable = 3,
    /// Stored data is not what it should be.
    Data = 4,
    /// The checkpoint does not fit the job.
    Checkpoint = 5,
    /// Another process took over.
    Fenced = 6,
    /// A signal came before the end.
    Interrupted = 130,
}

/// The end of a command that could not do its work.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    message: String,
    hint: Option<String>,
    caret: Option<String>,
    /// The reader of standard output went away: nobody is left to tell, and nothing failed.
    reader_gone: bool,
}

impl Failure {
    /// A failure with a message of its own: lower-case, no full stop.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, caret: None, reader_gone: false }
    }

    /// The command line or a setting is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    /// A command whose output is only worth something when it is whole was told to stop.
    pub(crate) fn interrupted() -> Self {
        Self::new(Code::Interrupted, "interrupted before the end; what was printed is not complete")
    }

    /// What the exit code will say.
    pub(crate) const fn code(&self) -> Code {
        self.code
    }

    /// What went wrong.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Adds what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// An error with the chain of its causes.
    pub(crate) fn of(code: Code, error: &(dyn Error + 'static)) -> Self {
        let message = without_xml(&chain(error));
        Self { reader_gone: broken_pipe(error), hint: hint_for_s3(&message), ..Self::new(code, message) }
    }

    /// Prints what there is to say to standard error.
    pub(crate) fn report(&self) -> ExitCode {
        if self.reader_gone {
            return ExitCode::SUCCESS;
        }
        progress::note(&self.text());
        ExitCode::from(self.code as u8)
    }

    /// Message, caret and hint, as they are printed.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("error: {}", printable(&self.message));
        if let Some(caret) = &self.caret {
            write!(text, "\n{}", printable(caret.trim_end())).expect("a String takes all that is written to it");
        }
        if let Some(hint) = &self.hint {
            write!(text, "\nhint: {}", printable(hint)).expect("a String takes all that is written to it");
        }
        text
    }
}

/// `what: why: why that`, each cause once.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let why = error.to_string();
        if !text.ends_with(&why) {
            text.push_str(": ");
            text.push_str(&why);
        }
        cause = error.source();
    }
    text
}

/// The two commonest mistakes with S3, which its client does not put into words.
fn hint_for_s3(message: &str) -> Option<String> {
    // Without a key the client asks for one at the address where Amazon's machines find theirs.
    let no_key = ["latest/api/token", "Missing AccessKeyId"].iter().any(|sign| message.contains(sign));
    if no_key {
        return Some(
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_ENDPOINT_URL unless it is Amazon's S3".to_owned(),
        );
    }
    message.contains("NoSuchBucket").then(|| "`tidegate admin init` makes the buckets".to_owned())
}

/// Of the XML in which S3 says what is wrong only what it says.
pub(crate) fn without_xml(text: &str) -> String {
    let Some((before, xml)) = text.split_once("<?xml") else { return text.to_owned() };
    let between = |tag: &str| {
        let (_, rest) = xml.split_once(&format!("<{tag}>"))?;
        rest.split_once("</").map(|(inner, _)| inner.trim().trim_end_matches('.'))
    };
    let said: Vec<&str> = [between("Code"), between("Message")].into_iter().flatten().collect();
    format!("{before}{}", said.join(": "))
}

fn broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Strangers' bytes end up in messages; none of them may steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::of(Code::Failed, &error)
    }
}

impl From<arrow::error::ArrowError> for Failure {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::of(Code::Failed, &error)
    }
}

impl From<parquet::errors::ParquetError> for Failure {
    fn from(error: parquet::errors::ParquetError) -> Self {
        Self::of(Code::Failed, &error)
    }
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Self {
        Self::of(Code::Unavailable, &error)
    }
}

impl From<::topic::Error> for Failure {
    fn from(error: ::topic::Error) -> Self {
        use ::topic::ErrorKind;
        let code = match error.kind() {
            ErrorKind::Config | ErrorKind::NotFound => Code::Usage,
            ErrorKind::Unavailable | ErrorKind::Stopped => Code::Unavailable,
            ErrorKind::Data => Code::Data,
            ErrorKind::Fenced => Code::Fenced,
            ErrorKind::Internal => Code::Failed,
        };
        let failure = Self::of(code, &error);
        match error.kind() {
            ErrorKind::NotFound => failure.hint("`tidegate topic ls` lists the topics that exist"),
            _ => failure,
        }
    }
}

impl From<::ingest::Error> for Failure {
    fn from(error: ::ingest::Error) -> Self {
        use ::ingest::ErrorKind;
        let code = match error.kind() {
            ErrorKind::Config => Code::Usage,
            ErrorKind::Unavailable | ErrorKind::Stopped => Code::Unavailable,
            ErrorKind::Data => Code::Data,
            ErrorKind::Fenced => Code::Fenced,
            ErrorKind::Internal => Code::Failed,
        };
        Self::of(code, &error)
    }
}

impl From<::relay::Error> for Failure {
    fn from(error: ::relay::Error) -> Self {
        use ::relay::ErrorKind;
        let code = match error.kind() {
            ErrorKind::Config => Code::Usage,
            ErrorKind::Unavailable => Code::Unavailable,
            ErrorKind::Internal => Code::Failed,
        };
        Self::of(code, &error)
    }
}

impl From<processor::Error> for Failure {
    fn from(error: processor::Error) -> Self {
        use processor::ErrorKind;
        let code = match error.kind() {
            ErrorKind::Config | ErrorKind::Job => Code::Usage,
            ErrorKind::Unavailable | ErrorKind::Stopped => Code::Unavailable,
            ErrorKind::Data => Code::Data,
            ErrorKind::Checkpoint => Code::Checkpoint,
            ErrorKind::Fenced => Code::Fenced,
            ErrorKind::Internal => Code::Failed,
        };
        let failure = Self::of(code, &error);
        let hint = error.hint().map(str::to_owned).or_else(|| failure.hint.clone());
        Self { hint, caret: error.caret().map(str::to_owned), ..failure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_then_caret_then_hint() {
        let mut failure = Failure::usage("no job `kind`").hint("did you mean `kinds`?");
        assert_eq!(failure.text(), "error: no job `kind`\nhint: did you mean `kinds`?");
        failure.caret = Some("  1 | SELECT x\n    |        ^\n".into());
        assert_eq!(failure.text(), "error: no job `kind`\n  1 | SELECT x\n    |        ^\nhint: did you mean `kinds`?");
    }

    #[test]
    fn what_s3_says_in_xml_is_said_in_words() {
        let text = "404 Not Found: <?xml version=\"1.0\"?>\n<Error><Code>NoSuchBucket</Code><Message>It is not there.</Message></Error>";
        assert_eq!(without_xml(text), "404 Not Found: NoSuchBucket: It is not there");
        assert_eq!(without_xml("plain"), "plain");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(Failure::usage("bad \u{1b}[2Jname").text(), "error: bad \u{fffd}[2Jname");
    }

    #[test]
    fn a_broken_pipe_is_found_below_other_errors() {
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        let wrapped = ::topic::Error::new(::topic::ErrorKind::Internal, "could not print").with_source(pipe);
        assert!(Failure::from(wrapped).reader_gone);
        assert!(!Failure::from(io::Error::from(io::ErrorKind::NotFound)).reader_gone);
    }
}
