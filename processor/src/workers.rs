//! Work on several threads of the runtime at once.

use std::future::Future;

use tokio::task::JoinSet;

use crate::error::{Error, Result};

/// Runs every future as a task of its own, all at once; what they return, in the order in which they were given.
///
/// Dropping the returned future ends them.
///
/// # Errors
/// `Internal` when one of them panics.
pub(crate) async fn at_once<W>(work: impl IntoIterator<Item = W>) -> Result<Vec<W::Output>>
where
    W: Future<Output: Send + 'static> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for (at, work) in work.into_iter().enumerate() {
        tasks.spawn(async move { (at, work.await) });
    }
    let mut done = Vec::with_capacity(tasks.len());
    while let Some(ended) = tasks.join_next().await {
        done.push(ended.map_err(|why| Error::internal("a worker of the job ended early").with_source(why))?);
    }
    done.sort_unstable_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, output)| output).collect())
}
