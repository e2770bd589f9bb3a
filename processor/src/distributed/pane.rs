//! Rows of some objects to panes: the leaf of a distributed batch.

use std::fmt;
use std::sync::{Arc, Mutex};

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::layout::{Layout, What};
use super::order::{Order, Share, shared_out};
use super::properties;
use super::worker::{Side, Stage};
use crate::engine::Intake;
use crate::error::{Error, Result};
use crate::run::{Done, ObjectReader, Queue};

/// Reads objects and makes panes of their rows, rows of queries, and notes.
#[derive(Debug)]
pub(super) struct PaneExec {
    pub(super) order: Arc<Order>,
    pub(super) objects: Vec<Share>,
    properties: Arc<PlanProperties>,
    /// Of the worker that runs it; the client runs none.
    side: Option<Arc<Side>>,
}

impl PaneExec {
    pub(super) fn new(order: Arc<Order>, objects: Vec<Share>, schema: SchemaRef, side: Option<Arc<Side>>) -> Self {
        Self { order, objects, properties: properties(schema), side }
    }

    /// The same for each of `tasks` tasks, with a share of the objects of nearly the same size.
    pub(super) fn shared_out(&self, tasks: usize) -> Vec<Arc<dyn ExecutionPlan>> {
        let variant = |share: Vec<Share>| {
            let exec = Self::new(Arc::clone(&self.order), share, self.schema(), self.side.clone());
            Arc::new(exec) as Arc<dyn ExecutionPlan>
        };
        shared_out(&self.objects, tasks).into_iter().map(variant).collect()
    }
}

impl DisplayAs for PaneExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PaneExec: objects={}, lake={}", self.objects.len(), self.order.place.uri)
    }
}

impl ExecutionPlan for PaneExec {
    fn name(&self) -> &'static str {
        "PaneExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let side = self.side.clone().ok_or_else(|| Error::internal("rows are read by workers only"))?;
        let (order, objects) = (Arc::clone(&self.order), self.objects.clone());
        let mut builder = RecordBatchReceiverStreamBuilder::new(self.schema(), 2);
        let send = builder.tx();
        builder.spawn(async move { read(&side, &order, &objects, &send).await.map_err(|error| side.told(&error)) });
        Ok(builder.build())
    }
}

/// Where a stage's batches go; closed when nobody wants them any more.
pub(super) type Sender = mpsc::Sender<DfResult<RecordBatch>>;

async fn read(side: &Side, order: &Order, objects: &[Share], send: &Sender) -> Result<()> {
    let job = order.plan(side.memory()).await?;
    let mut stage = Stage::begin("rows to panes", job.name());
    let layout = Layout::of_state(&job.plan).await?;
    let lake = side.open(&order.place)?.needing(order.needed());
    let objects: Result<_> = objects.iter().map(|share| Ok((share.number, share.object()?))).collect();
    let queue: Queue = Arc::new(Mutex::new(objects?));
    let (made, mut receive) = mpsc::channel::<Done>(2);
    let mut readers = JoinSet::new();
    for _ in 0..side.threads() {
        let reader = ObjectReader {
            intake: Intake::new(&job, order.range()).await?,
            columns: job.plan.tables[0].columns.clone(),
            lake: lake.clone(),
            queue: Arc::clone(&queue),
            turns: side.turns(),
        };
        readers.spawn(reader.run(made.clone()));
    }
    drop(made);
    while let Some(done) = receive.recv().await {
        let aggregates = |cut: usize| job.plan.cuts[cut].aggregates;
        for batch in packed(&layout, done, aggregates)? {
            if send.send(Ok(batch)).await.is_err() {
                return Ok(());
            }
        }
    }
    while let Some(reader) = readers.join_next().await {
        reader.map_err(|error| Error::internal("a reader ended early").with_source(error))??;
    }
    if lake.unreadable() > 0 {
        let lines = i64::try_from(lake.unreadable()).unwrap_or(i64::MAX);
        let _ = send.send(Ok(layout.note(What::Unreadable, 0, lines)?)).await;
    }
    stage.complete();
    Ok(())
}

/// What was made of an object, or a part of it, in the schema of the stage.
fn packed(layout: &Layout, done: Done, aggregates: impl Fn(usize) -> bool) -> Result<Vec<RecordBatch>> {
    let object = i64::try_from(done.object).unwrap_or(i64::MAX);
    let mut batches = Vec::new();
    for (cut, state) in done.taken.state {
        // Rows that are merged go where their group says, others anywhere.
        let at = if aggregates(cut) { 0 } else { object };
        for state in state.iter().filter(|state| state.num_rows() > 0) {
            batches.push(layout.rows(What::Section(cut), Int64Array::from_value(at, state.num_rows()), state)?);
        }
    }
    for (query, rows) in done.taken.rows {
        for rows in rows.iter().filter(|rows| rows.num_rows() > 0) {
            batches.push(layout.rows(layout.of_query(query), Int64Array::from_value(object, rows.num_rows()), rows)?);
        }
    }
    let rows = i64::try_from(done.rows).unwrap_or(i64::MAX);
    batches.push(layout.note(if done.ended { What::Read } else { What::Reading }, object, rows)?);
    Ok(batches)
}
