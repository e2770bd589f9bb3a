//! Panes of some groups to closed windows: the merging stage of a distributed batch.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::TryStreamExt;

use super::fault::heard;
use super::layout::{Layout, What, sorts};
use super::order::Order;
use super::pane::Sender;
use super::properties;
use super::worker::{Side, Stage};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::state::END_OF_TIME;

/// Holds the panes of the groups that are sent to it until no more come, then closes their windows, by ascending end;
/// rows of queries and notes pass at once.
#[derive(Debug)]
pub(super) struct WindowExec {
    pub(super) order: Arc<Order>,
    pub(super) input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    side: Option<Arc<Side>>,
}

impl WindowExec {
    pub(super) fn new(
        order: Arc<Order>,
        input: Arc<dyn ExecutionPlan>,
        schema: SchemaRef,
        side: Option<Arc<Side>>,
    ) -> Self {
        Self { order, input, properties: properties(schema), side }
    }
}

impl DisplayAs for WindowExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WindowExec")
    }
}

impl ExecutionPlan for WindowExec {
    fn name(&self) -> &'static str {
        "WindowExec"
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
        let [input] = <[_; 1]>::try_from(children).map_err(|_| Error::internal("a merging stage has one input"))?;
        Ok(Arc::new(Self::new(Arc::clone(&self.order), input, self.schema(), self.side.clone())))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let side = self.side.clone().ok_or_else(|| Error::internal("panes are merged by workers only"))?;
        let input = self.input.execute(partition, context)?;
        let order = Arc::clone(&self.order);
        let mut builder = RecordBatchReceiverStreamBuilder::new(self.schema(), 2);
        let send = builder.tx();
        builder.spawn(async move { merge(&side, &order, input, &send).await.map_err(|error| side.told(&error)) });
        Ok(builder.build())
    }
}

async fn merge(side: &Side, order: &Order, mut input: SendableRecordBatchStream, send: &Sender) -> Result<()> {
    let job = order.plan(side.memory()).await?;
    let mut stage = Stage::begin("panes to windows", job.name());
    let (taken, given) = (Layout::of_state(&job.plan).await?, Layout::of_closed(&job.plan));
    let mut engine = Engine::new(&job, order.range(), Vec::new(), []).await?;
    while let Some(batch) = input.try_next().await.map_err(heard)? {
        for parcel in sorts(&batch)? {
            let rows = taken.section(&parcel)?;
            let passed = match (parcel.what, rows) {
                (What::Section(section), Some(rows)) if taken.query(section).is_none() => {
                    engine.add_state(section, &rows)?;
                    continue;
                }
                (what, rows) => given.batch(what, parcel.at().clone(), parcel.count().clone(), rows.as_ref())?,
            };
            if send.send(Ok(passed)).await.is_err() {
                return Ok(());
            }
        }
        engine.shed().await?;
    }
    let turns = side.turns();
    loop {
        let turn = turns.acquire().await;
        let turn = turn.map_err(|error| Error::internal("windows have no turns").with_source(error))?;
        let Some((until, closed)) = engine.next_closed().await? else { break };
        drop(turn);
        for rows in closed {
            let batch = given.rows(What::Section(rows.cut), rows.ends, &rows.rows)?;
            if send.send(Ok(batch)).await.is_err() {
                return Ok(());
            }
        }
        if send.send(Ok(given.note(What::Closed, until, 0)?)).await.is_err() {
            return Ok(());
        }
    }
    let _ = send.send(Ok(given.note(What::Closed, END_OF_TIME, 0)?)).await;
    stage.complete();
    Ok(())
}
