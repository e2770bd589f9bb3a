//! Closed windows of all workers, by their ends: the head of a distributed batch, which the client runs.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::cmp::{gt, lt_eq};
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use super::layout::{Layout, Parcel, What, sorts};
use super::pane::Sender;
use super::properties;
use crate::error::{Error, Result};

/// Before any window has closed.
const NOTHING: i64 = i64::MIN;

/// Brings the partitions of its input together: rows of a window come once every partition has given its share of it,
/// and before the note that says so. A partition that is ahead of the others waits.
#[derive(Debug)]
pub(super) struct GatherExec {
    layout: Layout,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl GatherExec {
    pub(super) fn new(layout: Layout, input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = properties(SchemaRef::clone(layout.schema()));
        Self { layout, input, properties }
    }
}

impl DisplayAs for GatherExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatherExec: by=window end")
    }
}

impl ExecutionPlan for GatherExec {
    fn name(&self) -> &'static str {
        "GatherExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        let [input] =
            <[_; 1]>::try_from(children).map_err(|_| Error::internal("windows are gathered from one input"))?;
        Ok(Arc::new(Self::new(self.layout.clone(), input)))
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let partitions = 0..self.input.output_partitioning().partition_count();
        let partitions: DfResult<Vec<_>> =
            partitions.map(|partition| self.input.execute(partition, Arc::clone(&context))).collect();
        let gathering = Gathering::new(self.layout.clone(), partitions?);
        let mut builder = RecordBatchReceiverStreamBuilder::new(self.schema(), 2);
        let send = builder.tx();
        builder.spawn(async move { gathering.run(&send).await.map_err(DataFusionError::from) });
        Ok(builder.build())
    }
}

/// What a partition has given of windows that others are not done with.
#[derive(Default)]
struct Lane {
    /// While it waits for the others.
    parked: Option<SendableRecordBatchStream>,
    /// All its windows that end until then have come.
    until: i64,
    held: Vec<Parcel>,
}

type Answer = (usize, Option<DfResult<RecordBatch>>, SendableRecordBatchStream);

pub(super) struct Gathering {
    layout: Layout,
    lanes: Vec<Lane>,
    asked: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// All windows that end until then have been handed on.
    until: i64,
}

fn next(lane: usize, mut stream: SendableRecordBatchStream) -> BoxFuture<'static, Answer> {
    async move {
        let answer = stream.next().await;
        (lane, answer, stream)
    }
    .boxed()
}

impl Gathering {
    pub(super) fn new(layout: Layout, partitions: Vec<SendableRecordBatchStream>) -> Self {
        let lanes = partitions.iter().map(|_| Lane { until: NOTHING, ..Lane::default() }).collect();
        let asked = partitions.into_iter().enumerate().map(|(lane, stream)| next(lane, stream)).collect();
        Self { layout, lanes, asked, until: NOTHING }
    }

    pub(super) async fn run(mut self, send: &Sender) -> Result<()> {
        while let Some((at, answer, stream)) = self.asked.next().await {
            let mut ready = Vec::new();
            match answer {
                Some(batch) => {
                    for parcel in sorts(&batch?)? {
                        self.take(at, parcel, &mut ready);
                    }
                    self.lanes[at].parked = Some(stream);
                }
                // It ends with a note that all its windows have come; without, its worker is gone.
                None if self.lanes[at].until != i64::MAX => {
                    return Err(Error::internal("a worker ended before all windows had come"));
                }
                None => {}
            }
            self.advance(&mut ready)?;
            for batch in ready {
                if send.send(Ok(batch)).await.is_err() {
                    return Ok(());
                }
            }
            for (at, lane) in self.lanes.iter_mut().enumerate() {
                if lane.until <= self.until {
                    self.asked.extend(lane.parked.take().map(|stream| next(at, stream)));
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, at: usize, parcel: Parcel, ready: &mut Vec<RecordBatch>) {
        let lane = &mut self.lanes[at];
        match parcel.what {
            What::Closed => lane.until = parcel.at().values().iter().copied().fold(lane.until, i64::max),
            What::Section(section) if self.layout.query(section).is_none() => lane.held.push(parcel),
            _ => ready.push(parcel.batch),
        }
    }

    /// Hands on the windows that every partition is done with.
    fn advance(&mut self, ready: &mut Vec<RecordBatch>) -> Result<()> {
        let until = self.lanes.iter().map(|lane| lane.until).min().unwrap_or(i64::MAX);
        if until <= self.until {
            return Ok(());
        }
        self.until = until;
        for lane in &mut self.lanes {
            for parcel in std::mem::take(&mut lane.held) {
                let limit = Int64Array::new_scalar(until);
                let later = filter_record_batch(&parcel.batch, &gt(parcel.at(), &limit)?)?;
                ready.push(filter_record_batch(&parcel.batch, &lt_eq(parcel.at(), &limit)?)?);
                if later.num_rows() > 0 {
                    lane.held.push(Parcel { batch: later, ..parcel });
                }
            }
        }
        ready.push(self.layout.note(What::Closed, until, 0)?);
        Ok(())
    }
}
