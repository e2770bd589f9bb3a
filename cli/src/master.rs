//! `--master`: where a batch or a query runs, in this process or on the workers of a cluster.

use std::fmt;
use std::str::FromStr;

use processor::distributed::Cluster;

use crate::error::Failure;

/// Scheme of a cluster's address.
const SCHEME: &str = "tidegate://";

/// Where a command runs, and whether only its plan is wanted.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MasterArgs {
    #[arg(
        long,
        value_name = "MASTER",
        env = "TIDEGATE_MASTER",
        hide_env_values = true,
        help = "Where it runs: local[N], in this process on N threads, or local[*], on one a processor; or on workers, as \
                tidegate://host:7400,host:7400, where a name stands for all its addresses [default: local[*]]"
    )]
    pub(crate) master: Option<Master>,

    /// Print the plan of the stages on the workers, and run nothing
    #[arg(long, requires = "master")]
    explain: bool,
}

impl MasterArgs {
    /// The cluster that was named, if any.
    ///
    /// # Errors
    /// A wrong command line when its plan is wanted and there is none.
    pub(crate) fn cluster(&self) -> Result<Option<Cluster>, Failure> {
        match &self.master {
            Some(Master::Workers(addresses)) => Ok(Some(Cluster::new(addresses.clone()))),
            _ if self.explain => Err(Failure::usage(
                "--explain shows what each worker of --master tidegate://… has to do, and no worker is named",
            )
            .hint("`tidegate explain` shows how a job is planned")),
            _ => Ok(None),
        }
    }

    /// Whether only the plan is wanted.
    pub(crate) const fn explain(&self) -> bool {
        self.explain
    }

    /// How many threads of this process, if it says so.
    pub(crate) fn threads(&self) -> Option<usize> {
        match self.master {
            Some(Master::Local(threads)) => threads,
            _ => None,
        }
    }
}

/// Where it runs, in Spark's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Master {
    /// In this process, on so many threads; none is one a processor.
    Local(Option<usize>),
    /// On workers, each by `host:port`.
    Workers(Vec<String>),
}

impl FromStr for Master {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(threads) = text.strip_prefix("local") {
            return threads_of(threads).map(Self::Local).ok_or_else(|| {
                format!(
                    "`{text}` is no number of threads; use local for one, local[4], or local[*] for one a processor"
                )
            });
        }
        if let Some(addresses) = text.strip_prefix(SCHEME) {
            return workers(text, addresses);
        }
        if text.starts_with("spark://") {
            return Err(format!(
                "`{text}` is a cluster of Spark, which runs no tidegate: start workers with `tidegate cluster worker` and \
                 name them, as in --master tidegate://host:7400, or use local[N]"
            ));
        }
        Err(format!("`{text}` is no master; use local, local[4], local[*] or tidegate://host:7400,host:7400"))
    }
}

/// `local[4]` is four threads and `local` one; `local[*]` leaves it open.
fn threads_of(text: &str) -> Option<Option<usize>> {
    match text {
        "" => Some(Some(1)),
        "[*]" => Some(None),
        number => {
            let threads: usize = number.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?;
            (threads > 0).then_some(Some(threads))
        }
    }
}

fn workers(text: &str, addresses: &str) -> Result<Master, String> {
    let addresses: Vec<String> = addresses.trim_end_matches('/').split(',').map(|one| one.trim().to_owned()).collect();
    for address in &addresses {
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) {
            return Err(format!("`{address}` in `{text}` is no address; use tidegate://host:7400,host:7400"));
        }
    }
    Ok(Master::Workers(addresses))
}

impl fmt::Display for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(None) => f.write_str("local[*]"),
            Self::Local(Some(threads)) => write!(f, "local[{threads}]"),
            Self::Workers(addresses) => write!(f, "{SCHEME}{}", addresses.join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masters_are_read_as_spark_writes_them() {
        for (text, expected) in [
            ("local", Master::Local(Some(1))),
            ("local[*]", Master::Local(None)),
            ("local[4]", Master::Local(Some(4))),
            ("tidegate://a:1", Master::Workers(vec!["a:1".into()])),
            ("tidegate://a:1, [::1]:2/", Master::Workers(vec!["a:1".into(), "[::1]:2".into()])),
        ] {
            assert_eq!(text.parse(), Ok(expected.clone()), "{text}");
            assert_eq!(expected.to_string().parse(), Ok(expected));
        }
        for text in ["local[0]", "local[x]", "local4", "tidegate://", "tidegate://a", "tidegate://a:0", "yarn", ""] {
            assert!(text.parse::<Master>().is_err(), "{text}");
        }
        let spark = "spark://spark-master:7077".parse::<Master>().expect_err("Spark's");
        assert!(spark.contains("tidegate cluster worker"), "{spark}");
    }
}
