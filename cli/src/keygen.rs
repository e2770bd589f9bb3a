//! `tidegate keygen`: a new key pair, or the public half of one.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::ValueEnum;
use event::{SecretKey, nip19};
use serde::Serialize;

use crate::error::Failure;
use crate::keys;
use crate::progress::{aside, note};

/// Makes a key pair, or shows the public key of a secret one.
///
/// The randomness is the operating system's. With --out the secret key goes to a new file that only its owner may
/// read, and is not printed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate keygen --out me.key
  tidegate keygen --from me.key
  tidegate keygen --format json | jq -r .npub
  pass show nostr | tidegate keygen --from -")]
pub(crate) struct Args {
    /// Write the secret key to this new file instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Show the public key of the secret key in this file; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    from: Option<PathBuf>,

    /// How to print: table or json [default: table on a terminal, else json]
    #[arg(long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    format: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One line a spelling
    Table,
    /// One JSON object
    #[value(alias = "ndjson")]
    Json,
}

/// What is printed of a key pair.
#[derive(Serialize)]
struct Shown {
    npub: String,
    pubkey: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    nsec: Option<String>,
}

/// Makes or reads a key, and shows it.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let key = args.from.as_deref().map_or_else(keys::make, keys::read)?;
    if let Some(path) = &args.out {
        keys::write(&key, path)?;
        note(&format!("the secret key is in file `{}`; whoever has it writes in your name", path.display()));
    }
    let secret = args.out.is_none() && args.from.is_none();
    let terminal = io::stdout().is_terminal();
    let format = args.format.unwrap_or(if terminal { Format::Table } else { Format::Json });
    let text = shown(&key, secret).text(format);
    aside(|| io::stdout().write_all(text.as_bytes()))?;
    Ok(())
}

fn shown(key: &SecretKey, secret: bool) -> Shown {
    let pubkey = key.public_key();
    Shown { npub: nip19::npub(&pubkey), pubkey: pubkey.to_string(), nsec: secret.then(|| nip19::nsec(key)) }
}

impl Shown {
    fn text(&self, format: Format) -> String {
        match (format, &self.nsec) {
            (Format::Json, _) => serde_json::json!(self).to_string() + "\n",
            (Format::Table, None) => format!("npub    {}\npubkey  {}\n", self.npub, self.pubkey),
            (Format::Table, Some(nsec)) => {
                format!("npub    {}\npubkey  {}\nnsec    {nsec}  (secret)\n", self.npub, self.pubkey)
            }
        }
    }
}
