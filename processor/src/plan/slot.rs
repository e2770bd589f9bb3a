//! Leaves that are filled by hand: the tables of a cut plan, and the operator that reads what was put in.
//!
//! A plan is built once and run many times; before each run its slots are filled with the rows of that run. A leaf
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
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, reset_plan_states};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt, stream};

/// A table whose scan is a [`SlotExec`]; `filters` says whether the one who fills the slot applies the filters.
#[derive(Debug)]
pub(crate) struct SlotTable {
    pub(crate) name: Arc<str>,
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
        Ok(Arc::new(SlotExec::new(Arc::clone(&self.name), schema, projection, filters.to_vec())))
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
    leaf: Leaf,
    properties: Arc<PlanProperties>,
}

/// What a leaf reads.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    /// Name of the table.
    pub(crate) table: Arc<str>,
    /// Columns of the table, in the order of the rows that the slot wants.
    pub(crate) projection: Vec<usize>,
    /// Filters that whoever fills the slot has to apply.
    pub(crate) filters: Vec<Expr>,
    /// The rows that the slot wants.
    pub(crate) schema: SchemaRef,
    slot: Slot,
}

impl SlotExec {
    pub(crate) fn new(table: Arc<str>, schema: SchemaRef, projection: Vec<usize>, filters: Vec<Expr>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let leaf = Leaf { table, projection, filters, schema, slot: Slot::default() };
        Self { leaf, properties: Arc::new(properties) }
    }
}

impl DisplayAs for SlotExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<&str> = self.leaf.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "SlotExec: {}, columns=[{}]", self.leaf.table, columns.join(", "))?;
        if !self.leaf.filters.is_empty() {
            let filters: Vec<String> = self.leaf.filters.iter().map(ToString::to_string).collect();
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
        Ok(self.leaf.slot.take().unwrap_or_else(|| {
            Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream::empty::<Result<RecordBatch>>()))
        }))
    }
}

/// Rows for a leaf.
pub(crate) type Rows = stream::BoxStream<'static, Result<RecordBatch>>;

/// A plan over slots, run again and again.
#[derive(Debug)]
pub(crate) struct SlotPlan {
    plan: Arc<dyn ExecutionPlan>,
    leaves: Vec<Leaf>,
    context: Arc<TaskContext>,
}

impl SlotPlan {
    /// Takes a plan whose sources are [`SlotExec`]s; its leaves come left to right.
    pub(crate) fn new(plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Self {
        let mut leaves = Vec::new();
        find_leaves(&plan, &mut leaves);
        // A union at the top has a partition for each of its sides.
        let plan = match plan.output_partitioning().partition_count() {
            1 => plan,
            _ => Arc::new(CoalescePartitionsExec::new(plan)) as Arc<dyn ExecutionPlan>,
        };
        Self { plan, leaves, context }
    }

    /// The rows that the plan gives.
    pub(crate) fn schema(&self) -> SchemaRef {
        self.plan.schema()
    }

    /// What has to be filled, left to right.
    pub(crate) fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// Runs the plan to the end over the rows of each leaf.
    pub(crate) async fn run(&mut self, rows: Vec<Rows>) -> Result<Vec<RecordBatch>> {
        self.start(rows)?.try_collect().await
    }

    /// Begins a run; the rows come as they are computed.
    pub(crate) fn start(&mut self, rows: Vec<Rows>) -> Result<SendableRecordBatchStream> {
        // Metrics and run-once state of the last run would pile up in the operators.
        self.plan = reset_plan_states(Arc::clone(&self.plan))?;
        for (leaf, rows) in self.leaves.iter().zip(rows) {
            leaf.slot.put(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&leaf.schema), rows)));
        }
        self.plan.execute(0, Arc::clone(&self.context))
    }

    /// Runs the plan over batches that are there, a list for each leaf.
    pub(crate) async fn run_batches(&mut self, rows: Vec<Vec<RecordBatch>>) -> Result<Vec<RecordBatch>> {
        self.run(rows.into_iter().map(|rows| stream::iter(rows.into_iter().map(Ok)).boxed()).collect()).await
    }
}

/// The leaves of a plan, left to right.
fn find_leaves(plan: &Arc<dyn ExecutionPlan>, found: &mut Vec<Leaf>) {
    if let Some(exec) = plan.downcast_ref::<SlotExec>() {
        found.push(exec.leaf.clone());
    }
    for child in plan.children() {
        find_leaves(child, found);
    }
}
