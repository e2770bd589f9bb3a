//! An object store in memory whose calls are steps of a run: they fail, they work and say that they failed, and a put
//! may leave the first half of its bytes.
//!
//! A put that is torn leaves an object that was there as it is: no store that we run on replaces one by a part.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::broker::Defect;
use super::fault::{Hand, Op, Verdict};

/// The simulated store, as one run sees it.
#[derive(Clone, Debug)]
pub(super) struct SimStore {
    pub(super) objects: Arc<InMemory>,
    pub(super) hand: Hand,
    pub(super) defect: Option<Defect>,
}

impl SimStore {
    /// Leaves the first half of `payload`, where nothing is yet.
    async fn tear(&self, location: &Path, payload: PutPayload) {
        let whole = Bytes::from(payload);
        let half = whole.slice(..whole.len() / 2);
        if self.objects.head(location).await.is_err() {
            self.objects.put(location, half.into()).await.expect("memory takes an object");
        }
    }

    async fn delete_one(self, location: Result<Path>) -> Result<Path> {
        let location = location?;
        let verdict = self.hand.enter(Op::Delete).await;
        if matches!(verdict, Verdict::Fail | Verdict::TearAndFail) {
            return Err(unavailable(Op::Delete));
        }
        let done = self.objects.delete(&location).await;
        match verdict {
            Verdict::GoAndFail => Err(unavailable(Op::Delete)),
            Verdict::GoAndDie | Verdict::TearAndDie => self.hand.die().await,
            _ => done.map(|()| location),
        }
    }
}

fn unavailable(op: Op) -> Error {
    Error::Generic { store: "simulated", source: format!("the simulated store did not answer to {op:?}").into() }
}

impl fmt::Display for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimStore")
    }
}

#[async_trait]
impl ObjectStore for SimStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let verdict = self.hand.enter(Op::Put).await;
        match verdict {
            Verdict::Go => self.objects.put_opts(location, payload, opts).await,
            Verdict::Fail => Err(unavailable(Op::Put)),
            Verdict::GoAndFail => {
                self.objects.put_opts(location, payload, opts).await?;
                Err(unavailable(Op::Put))
            }
            Verdict::GoAndDie => {
                drop(self.objects.put_opts(location, payload, opts).await);
                self.hand.die().await
            }
            Verdict::TearAndFail if self.defect == Some(Defect::SilentTear) => {
                self.tear(location, payload).await;
                Ok(PutResult { e_tag: None, version: None })
            }
            Verdict::TearAndFail => {
                self.tear(location, payload).await;
                Err(unavailable(Op::Put))
            }
            Verdict::TearAndDie => {
                self.tear(location, payload).await;
                self.hand.die().await
            }
        }
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        // Snapshots are put whole; whoever puts them in parts adds the faults of that.
        Err(Error::NotImplemented { operation: "put_multipart_opts".into(), implementer: "SimStore".into() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match self.hand.enter(Op::Get).await {
            Verdict::Go => self.objects.get_opts(location, options).await,
            Verdict::GoAndDie | Verdict::TearAndDie => self.hand.die().await,
            Verdict::Fail | Verdict::GoAndFail | Verdict::TearAndFail => Err(unavailable(Op::Get)),
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations.then(move |location| store.clone().delete_one(location)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        match self.hand.enter(Op::List).await {
            Verdict::Go => self.objects.list_with_delimiter(prefix).await,
            Verdict::GoAndDie | Verdict::TearAndDie => self.hand.die().await,
            Verdict::Fail | Verdict::GoAndFail | Verdict::TearAndFail => Err(unavailable(Op::List)),
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
