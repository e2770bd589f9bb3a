//! Rows of some objects: the leaf of a distributed query.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::order::{Place, Share, shared_out};
use super::worker::Side;
use crate::error::{Error, Result};
use crate::lake::{LakeTable, Needed};

/// What of a table is read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Wanted {
    pub(super) place: Place,
    /// Columns of the table, in the order of the query.
    pub(super) columns: Vec<usize>,
    event_time: (Option<i64>, Option<i64>),
    id: Option<[u8; 32]>,
    pubkey: Option<[u8; 32]>,
}

impl Wanted {
    pub(super) fn new(place: Place, columns: Vec<usize>, needed: &Needed) -> Self {
        let event_time = (needed.event_time.start, needed.event_time.end);
        Self { place, columns, event_time, id: needed.id, pubkey: needed.pubkey }
    }

    fn needed(&self) -> Needed {
        let (start, end) = self.event_time;
        Needed { event_time: start..end, id: self.id, pubkey: self.pubkey }
    }
}

/// Reads objects, a share of them in each partition.
#[derive(Debug)]
pub(super) struct RowsExec {
    pub(super) wanted: Wanted,
    pub(super) parts: Vec<Vec<Share>>,
    properties: Arc<PlanProperties>,
    side: RowsSide,
}

/// Who opens the lake.
#[derive(Clone, Debug)]
pub(super) enum RowsSide {
    /// The client, for plans that need no worker.
    Client(LakeTable),
    /// A worker.
    Worker(Arc<Side>),
}

impl RowsExec {
    pub(super) fn try_new(wanted: Wanted, parts: Vec<Vec<Share>>, side: RowsSide) -> Result<Self> {
        let schema = Arc::new(wanted.place.table()?.schema().project(&wanted.columns)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(parts.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self { wanted, parts, properties: Arc::new(properties), side })
    }

    /// The same for each of `tasks` tasks.
    pub(super) fn shared_out(&self, tasks: usize) -> Result<Vec<Arc<dyn ExecutionPlan>>> {
        let objects: Vec<Share> = self.parts.iter().flatten().cloned().collect();
        let tasks = shared_out(&objects, tasks).into_iter().map(|objects| {
            let parts = shared_out(&objects, self.parts.len());
            let exec = Self::try_new(self.wanted.clone(), parts, self.side.clone())?;
            Ok(Arc::new(exec) as Arc<dyn ExecutionPlan>)
        });
        tasks.collect()
    }

    fn lake(&self) -> Result<LakeTable> {
        let lake = match &self.side {
            RowsSide::Client(lake) => lake.clone(),
            RowsSide::Worker(side) => side.open(&self.wanted.place)?,
        };
        Ok(lake.needing(self.wanted.needed()))
    }

    fn failed(side: &RowsSide, error: &Error) -> DataFusionError {
        match side {
            RowsSide::Client(_) => DataFusionError::External(error.to_string().into()),
            RowsSide::Worker(side) => side.told(error),
        }
    }
}

impl DisplayAs for RowsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let objects: usize = self.parts.iter().map(Vec::len).sum();
        write!(f, "RowsExec: objects={objects}, lake={}", self.wanted.place.uri)
    }
}

impl ExecutionPlan for RowsExec {
    fn name(&self) -> &'static str {
        "RowsExec"
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

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let side = self.side.clone();
        let failed = move |error: Error| Self::failed(&side, &error);
        let lake = self.lake().map_err(&failed)?;
        // The reader gives columns in the order of the table; the query may want another.
        let mut read = self.wanted.columns.clone();
        read.sort_unstable();
        let order: Vec<usize> =
            self.wanted.columns.iter().filter_map(|column| read.binary_search(column).ok()).collect();
        let objects = self.parts.get(partition).cloned().unwrap_or_default();
        let rows = stream::iter(objects)
            .map(move |share| match share.object() {
                Ok(object) => lake.read(&object, &read),
                Err(error) => stream::once(async move { Err(error) }).boxed(),
            })
            .flatten()
            .map_err(failed)
            .map(move |rows| Ok(rows?.project(&order)?));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}
