//! Any SQL over the lake, once: the table `events` is every row of the topic.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::scalar::ScalarValue;
use event::schema::{CREATED_AT, events_schema};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};

use crate::error::Result;
use crate::job::{job_error, place_caret};
use crate::lake::{LakeObject, LakeTable};
use crate::plan::functions::scalar_functions;

/// A query's rows as they come, and their columns.
pub struct QueryRows {
    /// Columns of the rows.
    pub schema: SchemaRef,
    /// The rows.
    pub rows: BoxStream<'static, Result<RecordBatch>>,
}

impl std::fmt::Debug for QueryRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryRows").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// Runs one query over the lake.
///
/// # Errors
/// `Job` with a hint and a caret when the SQL cannot be planned; the rows fail with `Data` or `Unavailable`.
pub async fn sql(lake: LakeTable, query: &str) -> Result<QueryRows> {
    let context = SessionContext::new_with_config(config());
    for function in scalar_functions() {
        context.register_udf(function);
    }
    context.register_table("events", Arc::new(EventsTable { lake }))?;
    let planned = context.sql(query).await.map_err(job_error);
    let planned = planned.map_err(|error| place_caret(error, query))?;
    let rows = planned.execute_stream().await?;
    Ok(QueryRows { schema: rows.schema(), rows: rows.map_err(Into::into).boxed() })
}

fn config() -> SessionConfig {
    let mut config = SessionConfig::new();
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    config
}

#[derive(Debug)]
struct EventsTable {
    lake: LakeTable,
}

#[async_trait]
impl TableProvider for EventsTable {
    fn schema(&self) -> SchemaRef {
        events_schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        // Bounds of event time leave whole objects out; the rows of the others are still filtered above.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let schema = events_schema();
        let mut columns = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        columns.sort_unstable();
        let (objects, _) = LakeTable::prune(self.lake.objects().await?, &event_time_bounds(filters));
        let parts = state.config().target_partitions().min(objects.len()).max(1);
        let mut shares: Vec<Vec<LakeObject>> = vec![Vec::new(); parts];
        for (at, object) in objects.into_iter().enumerate() {
            shares[at % parts].push(object);
        }
        let read = Arc::new(schema.project(&columns)?);
        let streams = shares.into_iter().map(|objects| {
            let part = Part { lake: self.lake.clone(), objects, columns: columns.clone(), schema: Arc::clone(&read) };
            Arc::new(part) as Arc<dyn PartitionStream>
        });
        // The reader gives columns in the order of the table; the plan may want another.
        let order: Option<Vec<usize>> = projection.map(|wanted| {
            wanted.iter().filter_map(|column| columns.iter().position(|other| other == column)).collect()
        });
        let exec =
            StreamingTableExec::try_new(Arc::clone(&read), streams.collect(), order.as_ref(), None, false, None)?;
        Ok(Arc::new(exec))
    }
}

/// Some objects of the lake, one after another.
#[derive(Debug)]
struct Part {
    lake: LakeTable,
    objects: Vec<LakeObject>,
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (lake, columns) = (self.lake.clone(), self.columns.clone());
        let rows = stream::iter(self.objects.clone()).map(move |object| lake.read(&object, &columns)).flatten();
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows.map_err(DataFusionError::from)))
    }
}

/// The bounds that comparisons of `created_at` with constants put on event time, `[start, end)` in microseconds.
fn event_time_bounds(filters: &[Expr]) -> Range<Option<i64>> {
    let mut bounds = None..None;
    for filter in filters {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { continue };
        let (column, op, constant) = match (left.as_ref(), right.as_ref()) {
            (Expr::Column(column), Expr::Literal(constant, _)) => (column, Some(*op), constant),
            (Expr::Literal(constant, _), Expr::Column(column)) => (column, op.swap(), constant),
            _ => continue,
        };
        let ScalarValue::TimestampMicrosecond(Some(time), _) = constant else { continue };
        if column.name != CREATED_AT {
            continue;
        }
        let (start, end) = match op {
            Some(Operator::Gt | Operator::GtEq) => (Some(*time), None),
            Some(Operator::Lt) => (None, Some(*time)),
            Some(Operator::LtEq) => (None, Some(time.saturating_add(1))),
            Some(Operator::Eq) => (Some(*time), Some(time.saturating_add(1))),
            _ => (None, None),
        };
        bounds.start = bounds.start.max(start);
        bounds.end = match (bounds.end, end) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    bounds
}
