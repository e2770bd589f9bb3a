//! Secret keys as commands get them: from a file, from standard input, from `TIDEGATE_SECRET_KEY`, or made anew; never
//! from the command line, which everybody on the machine can read.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use event::{SecretKey, nip19};
use rand::TryRngCore;
use rand::rngs::OsRng;

use crate::error::{Code, Failure};

/// The variable that may hold a secret key.
pub(crate) const VARIABLE: &str = "TIDEGATE_SECRET_KEY";
/// A key is 64 characters; a file beyond this is another one.
const FILE_BYTES_MAX: u64 = 4 << 10;

/// A new key, from the randomness of the operating system.
pub(crate) fn make() -> Result<SecretKey, Failure> {
    loop {
        let mut bytes = [0; 32];
        OsRng.try_fill_bytes(&mut bytes).map_err(|why| {
            Failure::new(Code::Failed, format!("the operating system gives no randomness for a key: {why}"))
        })?;
        // All but one in 2^128 are keys.
        if let Some(key) = SecretKey::from_bytes(bytes) {
            return Ok(key);
        }
    }
}

/// The key in the file at `path`, or on standard input for `-`: an nsec or 64 hex digits.
pub(crate) fn read(path: &Path) -> Result<SecretKey, Failure> {
    let (text, place) = contents(path)?;
    nip19::secret_key(&text).map_err(|why| Failure::usage(format!("{place} holds no secret key: {why}")))
}

/// What the file at `path` holds, or standard input for `-`, and how that place is called.
pub(crate) fn contents(path: &Path) -> Result<(String, String), Failure> {
    let mut text = String::new();
    let (read, place) = match path.as_os_str() == "-" {
        true => (io::stdin().take(FILE_BYTES_MAX).read_to_string(&mut text), "standard input".to_owned()),
        false => {
            let opened = OpenOptions::new().read(true).open(path);
            let read = opened.and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
            (read, format!("file `{}`", path.display()))
        }
    };
    read.map_err(|why| Failure::usage(format!("could not read a key from {place}: {why}")))?;
    Ok((text, place))
}

/// The key in the environment, if there is one.
pub(crate) fn from_environment() -> Result<Option<SecretKey>, Failure> {
    match std::env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty()) {
        Some(text) => {
            let key = nip19::secret_key(&text);
            key.map(Some).map_err(|why| Failure::usage(format!("variable {VARIABLE} holds no secret key: {why}")))
        }
        None => Ok(None),
    }
}

/// Writes the nsec into a new file that only its owner may read.
pub(crate) fn write(key: &SecretKey, path: &Path) -> Result<(), Failure> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = opened.map_err(|why| match why.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::usage(format!("file `{}` exists, and a key is never written over another", path.display()))
                .hint("name a new file, or show what is in this one with --from")
        }
        _ => Failure::new(Code::Failed, format!("could not make file `{}`: {why}", path.display())),
    })?;
    let written = writeln!(file, "{}", nip19::nsec(key)).and_then(|()| file.sync_all());
    written.map_err(|why| Failure::new(Code::Failed, format!("could not write file `{}`: {why}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_made_differ() {
        let (one, other) = (make().expect("a key"), make().expect("a key"));
        assert_ne!(one.public_key(), other.public_key());
    }
}
