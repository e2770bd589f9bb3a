//! Windows of several workers are one sequence; a worker of another version is none of ours.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream;
use proptest::prelude::*;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::client::Cluster;
use super::gather::Gathering;
use super::layout::{Layout, What, sorts};
use crate::error::ErrorKind;
use crate::job::{Job, JobOptions, JobSource};

async fn layout() -> Layout {
    let sql = "SELECT window.end AS e, kind, count(*) AS n FROM events GROUP BY window(created_at, '1 hour'), kind";
    let source = JobSource { name: "tally".into(), sql: sql.into(), path: None };
    let job = Job::plan(&source, &JobOptions::default()).await.expect("a job");
    Layout::of_closed(&job.plan)
}

fn zeros(data_type: &DataType, len: usize) -> ArrayRef {
    match data_type {
        DataType::Struct(fields) => {
            let columns = fields.iter().map(|field| zeros(field.data_type(), len)).collect();
            Arc::new(StructArray::new(fields.clone(), columns, None))
        }
        plain => cast(&Int64Array::from_value(0, len), plain).expect("a number"),
    }
}

/// Rows of the one cut that end at `ends`.
fn rows(layout: &Layout, ends: &[i64]) -> RecordBatch {
    let of_nothing = layout.note(What::Closed, 0, 0).expect("a note");
    let columns = of_nothing.columns()[3..].iter().map(|column| zeros(column.data_type(), ends.len()));
    let schema = of_nothing.schema();
    let schema = Schema::new(schema.fields()[3..].to_vec());
    let rows = RecordBatch::try_new(Arc::new(schema), columns.collect()).expect("rows");
    layout.rows(What::Section(0), Int64Array::from(ends.to_vec()), &rows).expect("rows")
}

/// Of a partition: the ends of windows by chunk, in which they come in any order.
fn chunks() -> impl Strategy<Value = Vec<Vec<i64>>> {
    prop::collection::vec(prop::collection::vec(1_i64..8, 0..5), 0..5).prop_map(|steps| {
        let mut from = 0;
        let of = |steps: Vec<i64>| {
            let ends: Vec<i64> = steps.iter().map(|step| from + step).collect();
            from = ends.iter().copied().max().unwrap_or(from);
            ends
        };
        steps.into_iter().map(of).collect()
    })
}

proptest! {
    /// Whatever comes when: all rows come, and none after the note that its window is closed.
    #[test]
    fn windows_come_by_their_ends(partitions in prop::collection::vec(chunks(), 1..4)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let layout = layout().await;
            let mut want: BTreeMap<i64, usize> = BTreeMap::new();
            let streams = partitions.iter().map(|chunks| {
                let mut batches = Vec::new();
                for ends in chunks {
                    ends.iter().for_each(|end| *want.entry(*end).or_default() += 1);
                    batches.push(rows(&layout, ends));
                    let until = ends.iter().copied().max();
                    batches.extend(until.map(|until| layout.note(What::Closed, until, 0).expect("a note")));
                }
                batches.push(layout.note(What::Closed, i64::MAX, 0).expect("a note"));
                let schema = Arc::clone(layout.schema());
                let batches = stream::iter(batches.into_iter().map(Ok));
                Box::pin(RecordBatchStreamAdapter::new(schema, batches)) as _
            }).collect();
            let (send, mut receive) = tokio::sync::mpsc::channel(1_000);
            Gathering::new(layout.clone(), streams).run(&send).await.expect("gathered");
            drop(send);
            let (mut got, mut closed): (BTreeMap<i64, usize>, i64) = (BTreeMap::new(), i64::MIN);
            while let Some(batch) = receive.recv().await {
                for parcel in sorts(&batch.expect("a batch")).expect("sorted") {
                    let at = parcel.at().values();
                    if parcel.what == What::Closed {
                        assert!(at.iter().all(|until| *until > closed));
                        closed = at[0];
                        continue;
                    }
                    for end in at {
                        assert!(*end > closed, "a row of {end} after windows until {closed} were closed");
                        *got.entry(*end).or_default() += 1;
                    }
                }
            }
            assert_eq!((got, closed), (want, i64::MAX));
        });
    }
}

#[tokio::test]
async fn a_partition_that_ends_early_is_an_error() {
    let layout = layout().await;
    let batches = vec![Ok(rows(&layout, &[1])), layout.note(What::Closed, 1, 0).map_err(Into::into)];
    let stream = RecordBatchStreamAdapter::new(Arc::clone(layout.schema()), stream::iter(batches));
    let (send, _receive) = tokio::sync::mpsc::channel(10);
    assert!(Gathering::new(layout, vec![Box::pin(stream)]).run(&send).await.is_err());
}

#[tokio::test]
async fn a_worker_of_another_version_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let old = datafusion_distributed::Worker::default().with_version("0.0.1 (DataFusion 1) #1");
    let mut served = JoinSet::new();
    served.spawn(
        Server::builder().add_service(old.into_worker_server()).serve_with_incoming(TcpIncoming::from(listener)),
    );
    let refused = Cluster::new(vec![address.clone()]).workers().await.expect_err("another version");
    assert_eq!(refused.kind(), ErrorKind::Config);
    assert!(refused.to_string().contains(&address) && refused.to_string().contains("0.0.1"), "{refused}");
}

#[tokio::test]
async fn addresses_without_a_worker_are_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let refused = Cluster::new(vec![address.clone()]).workers().await.expect_err("nobody");
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.to_string().contains(&address), "{refused}");
    let refused = Cluster::new(vec!["no-such-host.invalid:1".into()]).workers().await.expect_err("no host");
    assert_eq!(refused.kind(), ErrorKind::Config, "{refused}");
}
