//! Any SQL over the lake, a topic, or a topic beyond its lake, once: a table is every row of them.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::project_schema;
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::scalar::ScalarValue;
use event::Table;
use event::schema::{ID, PUBKEY};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};

use crate::error::{Error, Result};
use crate::job::{job_error, place_caret};
use crate::lake::{LakeObject, LakeTable, Needed};
use crate::plan::functions::register_functions;
use crate::tail::TopicTail;

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

/// Runs one query over one topic of the lake.
///
/// # Errors
/// `Job` with a hint and a caret when the SQL cannot be planned; the rows fail with `Data` or `Unavailable`.
pub async fn sql(lake: LakeTable, query: &str) -> Result<QueryRows> {
    sql_over(vec![Source { table: lake.table(), lake: Some(lake), tail: None }], query, None).await
}

/// Where the rows of a table lie: the objects of a lake, then what a topic holds.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Which table.
    pub table: Table,
    /// Every row of it.
    pub lake: Option<LakeTable>,
    /// A stretch of the topic.
    pub tail: Option<TopicTail>,
}

/// Runs one query over tables, each by its name, on so many threads, or one a processor. A row that is in the lake and in
/// the topic's stretch is there twice.
///
/// # Errors
/// As [`sql()`].
pub async fn sql_over(sources: Vec<Source>, query: &str, threads: Option<usize>) -> Result<QueryRows> {
    let mut config = session_config();
    if let Some(threads) = threads {
        config = config.with_target_partitions(threads);
    }
    let mut context = SessionContext::new_with_config(config);
    register_functions(&mut context)?;
    for source in sources {
        context.register_table(source.table.name(), Arc::new(source))?;
    }
    let planned = context.sql(query).await.map_err(job_error);
    let planned = planned.map_err(|error| place_caret(error, query))?;
    let rows = planned.execute_stream().await.map_err(|error| match error {
        // The lake was listed meanwhile.
        DataFusionError::External(_) => Error::from(error),
        said => place_caret(job_error(said), query),
    })?;
    Ok(QueryRows { schema: rows.schema(), rows: rows.map_err(Into::into).boxed() })
}

/// Settings of a session for queries.
pub(crate) fn session_config() -> SessionConfig {
    let mut config = SessionConfig::new();
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    config
}

#[async_trait]
impl TableProvider for Source {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        // Bounds of event time, an id or an author leave whole objects and row groups out; the rows of the others are
        // still filtered above.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let schema = self.table.schema();
        let mut columns = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        columns.sort_unstable();
        let read = Arc::new(schema.project(&columns)?);
        let mut streams: Vec<Arc<dyn PartitionStream>> = Vec::new();
        if let Some(lake) = &self.lake {
            let needed = needed_by(filters, self.table);
            let (objects, _) = LakeTable::prune(lake.objects().await?, &needed.event_time);
            let lake = lake.clone().needing(needed);
            let parts = state.config().target_partitions().min(objects.len());
            let mut shares: Vec<Vec<LakeObject>> = vec![Vec::new(); parts];
            for (at, object) in objects.into_iter().enumerate() {
                shares[at % parts].push(object);
            }
            streams.extend(shares.into_iter().map(|objects| {
                let part = Part { lake: lake.clone(), objects, columns: columns.clone(), schema: Arc::clone(&read) };
                Arc::new(part) as Arc<dyn PartitionStream>
            }));
        }
        if let Some(tail) = &self.tail {
            let part = TailPart { tail: tail.clone(), columns: columns.clone(), schema: Arc::clone(&read) };
            streams.push(Arc::new(part));
        }
        if streams.is_empty() {
            return Ok(Arc::new(EmptyExec::new(project_schema(&schema, projection)?)));
        }
        // The reader gives columns in the order of the table; the plan may want another.
        let order: Option<Vec<usize>> = projection.map(|wanted| {
            wanted.iter().filter_map(|column| columns.iter().position(|other| other == column)).collect()
        });
        let exec = StreamingTableExec::try_new(Arc::clone(&read), streams, order.as_ref(), None, false, None)?;
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

/// The stretch of the topic.
#[derive(Debug)]
struct TailPart {
    tail: TopicTail,
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl PartitionStream for TailPart {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.tail.read(&self.columns).map_err(DataFusionError::from);
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

/// The rows of a table that filters ask for, nearly.
pub(crate) fn needed_by(filters: &[Expr], table: Table) -> Needed {
    Needed {
        event_time: event_time_bounds(filters, table.event_time()),
        id: equal_bytes(filters, ID),
        pubkey: equal_bytes(filters, PUBKEY),
    }
}

/// The bounds that comparisons of the event time with constants put on it, `[start, end)` in microseconds.
fn event_time_bounds(filters: &[Expr], event_time: &str) -> Range<Option<i64>> {
    let mut bounds = None..None;
    for filter in filters {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { continue };
        let (column, op, constant) = match (left.as_ref(), right.as_ref()) {
            (Expr::Column(column), Expr::Literal(constant, _)) => (column, Some(*op), constant),
            (Expr::Literal(constant, _), Expr::Column(column)) => (column, op.swap(), constant),
            _ => continue,
        };
        let ScalarValue::TimestampMicrosecond(Some(time), _) = constant else { continue };
        if column.name != event_time {
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

/// The 32 bytes that column `name` has to be, as `id = X'…'` or `encode(id, 'hex') = '…'` says.
fn equal_bytes(filters: &[Expr], name: &str) -> Option<[u8; 32]> {
    filters.iter().find_map(|filter| {
        let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = filter else { return None };
        let bytes = match (left.as_ref(), right.as_ref()) {
            (Expr::Literal(constant, _), compared) | (compared, Expr::Literal(constant, _)) => {
                bytes_for(compared, constant, name)
            }
            _ => None,
        };
        bytes?.try_into().ok()
    })
}

/// The bytes of column `name` for which `compared` equals `constant`.
fn bytes_for(compared: &Expr, constant: &ScalarValue, name: &str) -> Option<Vec<u8>> {
    let text = |value: &ScalarValue| value.try_as_str().flatten().map(str::to_owned);
    match compared {
        Expr::Column(column) if column.name == name => match constant {
            ScalarValue::FixedSizeBinary(_, bytes)
            | ScalarValue::Binary(bytes)
            | ScalarValue::LargeBinary(bytes)
            | ScalarValue::BinaryView(bytes) => bytes.clone(),
            _ => None,
        },
        Expr::Cast(cast) => bytes_for(&cast.expr, constant, name),
        Expr::ScalarFunction(function) if function.name() == "encode" => {
            let [of, Expr::Literal(form, _)] = function.args.as_slice() else { return None };
            // Digits in upper case are no encoding; then no row is equal, and it does not matter what is read.
            let bytes = hex::decode(text(constant)?).ok().filter(|_| text(form).as_deref() == Some("hex"))?;
            bytes_for(of, &ScalarValue::Binary(Some(bytes)), name)
        }
        _ => None,
    }
}
