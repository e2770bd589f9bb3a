//! A leaf that is filled by hand: the tables of a cut plan, and the operator that reads what was put in.
//!
//! A plan is built once and run many times; before each run its slot is filled with the rows of that run. The leaf
//! declares no order and no statistics, so that state from different sources means the same.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::TableType;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, reset_plan_states};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions};
use futures::{StreamExt, TryStreamExt, stream};

/// A table whose scan is a [`SlotExec`]; `filters` says whether the one who fills the slot applies the filters.
#[derive(Debug)]
pub(crate) struct SlotTable {
    pub(crate) schema: SchemaRef,
    pub(crate) filters: bool,
}

#[async_trait]
impl TableProvider for SlotTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let projection = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&projection)?);
        Ok(Arc::new(SlotExec::new(schema, projection, filters.to_vec())))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let answer =
            if self.filters { TableProviderFilterPushDown::Exact } else { TableProviderFilterPushDown::Unsupported };
        Ok(vec![answer; filters.len()])
    }
}

/// What the next run of a plan reads.
#[derive(Clone, Default)]
pub(crate) struct Slot(Arc<Mutex<Option<SendableRecordBatchStream>>>);

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot")
    }
}

impl Slot {
    fn put(&self, rows: SendableRecordBatchStream) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(rows);
    }

    fn take(&self) -> Option<SendableRecordBatchStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Reads its slot; one partition.
#[derive(Debug)]
pub(crate) struct SlotExec {
    pub(crate) slot: Slot,
    /// Columns of the table, in the order of the rows that the slot wants.
    pub(crate) projection: Vec<usize>,
    /// Filters that whoever fills the slot has to apply.
    pub(crate) filters: Vec<Expr>,
    properties: Arc<PlanProperties>,
}

impl SlotExec {
    pub(crate) fn new(schema: SchemaRef, projection: Vec<usize>, filters: Vec<Expr>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { slot: Slot::default(), projection, filters, properties: Arc::new(properties) }
    }
}

impl DisplayAs for SlotExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.schema();
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "SlotExec: columns=[{}]", columns.join(", "))?;
        if !self.filters.is_empty() {
            let filters: Vec<String> = self.filters.iter().map(ToString::to_string).collect();
            write!(f, ", filters=[{}]", filters.join(", "))?;
        }
        Ok(())
    }
}

impl ExecutionPlan for SlotExec {
    fn name(&self) -> &'static str {
        "SlotExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        Ok(self.slot.take().unwrap_or_else(|| {
            Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream::empty::<Result<RecordBatch>>()))
        }))
    }
}

/// A plan over one slot, run again and again.
#[derive(Debug)]
pub(crate) struct SlotPlan {
    plan: Arc<dyn ExecutionPlan>,
    slot: Slot,
    input: SchemaRef,
    context: Arc<TaskContext>,
}

impl SlotPlan {
    /// Takes a plan of one partition with exactly one [`SlotExec`] among its leaves.
    pub(crate) fn try_new(plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> crate::error::Result<Self> {
        let mut leaves = Vec::new();
        find_slots(&plan, &mut leaves);
        let [leaf] = leaves.as_slice() else {
            return Err(crate::error::Error::internal(format!("a plan has {} slots instead of one", leaves.len())));
        };
        let exec = leaf.downcast_ref::<SlotExec>().expect("find_slots returns slots only");
        Ok(Self { slot: exec.slot.clone(), input: exec.schema(), plan, context })
    }

    /// The rows that the slot wants.
    pub(crate) fn input_schema(&self) -> &SchemaRef {
        &self.input
    }

    /// Runs the plan over `rows` to the end.
    pub(crate) async fn run(
        &mut self,
        rows: impl futures::Stream<Item = Result<RecordBatch>> + Send + 'static,
    ) -> Result<Vec<RecordBatch>> {
        // Metrics and run-once state of the last run would pile up in the operators.
        self.plan = reset_plan_states(Arc::clone(&self.plan))?;
        self.slot.put(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.input), rows.boxed())));
        self.plan.execute(0, Arc::clone(&self.context))?.try_collect().await
    }

    /// Runs the plan over batches that are there.
    pub(crate) async fn run_batches(&mut self, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        self.run(stream::iter(rows.into_iter().map(Ok))).await
    }
}

/// The slots among the leaves of a plan, left to right.
pub(crate) fn find_slots(plan: &Arc<dyn ExecutionPlan>, found: &mut Vec<Arc<dyn ExecutionPlan>>) {
    if plan.is::<SlotExec>() {
        found.push(Arc::clone(plan));
    }
    for child in plan.children() {
        find_slots(child, found);
    }
}
