//! One budget for everything that a job holds in memory.

/// How much memory a job may use, in bytes, and how it is shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    total: usize,
}

/// Of a budget too small to work with.
const LEAST: usize = 32 * 1024 * 1024;

impl Default for Memory {
    /// Two gibibytes.
    fn default() -> Self {
        Self { total: 2 * 1024 * 1024 * 1024 }
    }
}

impl Memory {
    /// A budget; none below 32 MiB, with which nothing works.
    #[must_use]
    pub const fn new(bytes: usize) -> Option<Self> {
        if bytes < LEAST { None } else { Some(Self { total: bytes }) }
    }

    /// A part of the budget, one of `of`, and no less than works.
    pub(crate) const fn share(self, of: usize) -> Self {
        let share = self.total / of;
        Self { total: if share < LEAST { LEAST } else { share } }
    }

    /// An eighth, at most 32 MiB: records that Kafka's client has fetched and the job has not read.
    #[must_use]
    pub fn queues(self) -> usize {
        (self.total / 8).min(32 * 1024 * 1024)
    }

    /// A quarter: what a query over closed windows, or a merge of panes, may hold before it uses files.
    pub(crate) const fn operators(self) -> usize {
        self.total / 4
    }

    /// Three eighths: open panes; beyond, the coldest go to files.
    pub(crate) const fn panes(self) -> usize {
        self.total / 8 * 3
    }

    /// An eighth: state that waits for the next snapshot; beyond, the job commits early.
    pub(crate) const fn fresh(self) -> usize {
        self.total / 8
    }

    /// An eighth: results that wait for their transaction; beyond, the job commits early.
    pub(crate) const fn results(self) -> usize {
        self.total / 8
    }
}
