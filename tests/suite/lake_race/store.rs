//! A store that stops before every step, so that a test decides who goes on, who fails and who dies.
//!
//! It behaves as S3 does where that matters: a listing of many names is no snapshot, and a request that has lain for
//! a quarter of an hour since it was signed does nothing; here, who sent it waits for ever and can only be killed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use event::Clock;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

/// A signed request is taken for so long, milliseconds.
const SIGNED_MS: i64 = 15 * 60 * 1_000;

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Fate {
    Pass = 0,
    /// Nothing happens, and there is no answer.
    Fail = 1,
    /// It happens, and the answer is lost.
    LoseAnswer = 2,
}

/// Where one process stands.
#[derive(Debug, Default)]
pub(super) struct Gate {
    waits: AtomicBool,
    hangs: AtomicBool,
    fate: AtomicU64,
}

impl Gate {
    /// Whether the process stands before a step.
    pub(super) fn waits(&self) -> bool {
        self.waits.load(Ordering::SeqCst)
    }

    /// Decides the step before which the process stands.
    pub(super) fn open(&self, fate: Fate) {
        self.fate.store(fate as u64, Ordering::SeqCst);
        self.waits.store(false, Ordering::SeqCst);
    }

    /// Whether the process waits for an answer that never comes.
    pub(super) fn hangs(&self) -> bool {
        self.hangs.load(Ordering::SeqCst)
    }

    async fn hang<T>(&self) -> T {
        self.hangs.store(true, Ordering::SeqCst);
        std::future::pending().await
    }

    /// Stops until the step is decided.
    pub(super) async fn pass(&self) -> Fate {
        self.waits.store(true, Ordering::SeqCst);
        let opened = |context: &mut Context<'_>| {
            if !self.waits() {
                return Poll::Ready(());
            }
            // Several requests may be under way, and those who drive them poll only whom they were told of.
            context.waker().wake_by_ref();
            Poll::Pending
        };
        std::future::poll_fn(opened).await;
        match self.fate.load(Ordering::SeqCst) {
            1 => Fate::Fail,
            2 => Fate::LoseAnswer,
            _ => Fate::Pass,
        }
    }
}

/// One process's way to the store that all share.
#[derive(Clone, Debug)]
pub(super) struct GatedStore {
    pub(super) inner: Arc<InMemory>,
    pub(super) gate: Arc<Gate>,
    pub(super) clock: Clock,
}

fn no_answer<T>() -> Result<T> {
    Err(object_store::Error::Generic { store: "gated", source: "no answer".into() })
}

impl GatedStore {
    async fn step(&self) -> Result<Fate> {
        match self.gate.pass().await {
            Fate::Fail => no_answer(),
            fate => Ok(fate),
        }
    }

    /// The names of one half of the alphabet as of now, then those of the other as of later.
    async fn list_slowly(&self, prefix: Option<Path>) -> Result<Vec<ObjectMeta>> {
        self.step().await?;
        let sorted = |mut listed: Vec<ObjectMeta>| {
            listed.sort_by(|a, b| a.location.cmp(&b.location));
            listed
        };
        let mut first = sorted(self.inner.list(prefix.as_ref()).try_collect().await?);
        first.truncate(first.len().div_ceil(2));
        let Some(last) = first.last().map(|meta| meta.location.clone()) else { return Ok(first) };
        self.step().await?;
        let rest = sorted(self.inner.list(prefix.as_ref()).try_collect().await?);
        first.extend(rest.into_iter().filter(|meta| meta.location > last));
        Ok(first)
    }
}

impl fmt::Display for GatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store with gates")
    }
}

#[async_trait]
impl ObjectStore for GatedStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let signed_ms = self.clock.now_ms();
        let fate = self.step().await?;
        if self.clock.now_ms() - signed_ms > SIGNED_MS {
            return self.gate.hang().await;
        }
        let put = self.inner.put_opts(path, payload, options).await?;
        if fate == Fate::LoseAnswer { no_answer() } else { Ok(put) }
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.step().await?;
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |path: Result<Path>| {
            let store = store.clone();
            async move {
                let path = path?;
                let fate = store.step().await?;
                object_store::ObjectStoreExt::delete(store.inner.as_ref(), &path).await?;
                if fate == Fate::LoseAnswer { no_answer() } else { Ok(path) }
            }
        };
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            let listed = store.list_slowly(prefix).await?;
            Ok::<_, object_store::Error>(stream::iter(listed.into_iter().map(Ok)))
        };
        stream::once(listed).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.step().await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
