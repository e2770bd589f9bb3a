//! A query over the lake, on workers: DataFusion's plan, cut into stages by the engine.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionContext;
use datafusion_distributed::{
    DesiredTaskCountEvent, DesiredTaskCountEventResponse, DistributedExt, DistributedLeafExec, ScaleUpLeafNodeEvent,
    ScaleUpLeafNodeEventResponse, SessionStateBuilderExt, display_plan_ascii,
};
use futures::{StreamExt, TryStreamExt, stream};

use super::channel::Channels;
use super::client::{Cluster, Found, TASKS_A_WORKER, Urls};
use super::codec::Codec;
use super::fault::heard;
use super::order::{Place, Share, shared_out};
use super::rows::{RowsExec, RowsSide, Wanted};
use crate::error::Result;
use crate::job::{job_error, place_caret};
use crate::lake::LakeTable;
use crate::plan::functions::register_functions;
use crate::sql::{QueryRows, needed_by, session_config};

impl Cluster {
    /// Runs one query over topics of the lake, each with the name by which workers know its place. A worker that is lost
    /// before the first row is made up for by the others.
    ///
    /// # Errors
    /// `Job` with a hint and a caret when the SQL cannot be planned; `Unavailable` when no worker answers; the rows fail
    /// as they do here, and when a worker is lost.
    pub async fn sql(&self, tables: Vec<(LakeTable, String)>, query: &str) -> Result<QueryRows> {
        let mut workers = self.workers().await?;
        let mut attempt = 1;
        loop {
            let (context, plan) = planned(&workers, &tables, query).await?;
            match begun(&context, plan).await {
                Ok((schema, rows)) => return Ok(QueryRows { schema, rows: rows.map_err(heard).boxed() }),
                Err(error) => workers = self.after(error, &workers, attempt).await?,
            }
            attempt += 1;
        }
    }

    /// The plan of a query as text: its stages, and what each worker has to do in them.
    ///
    /// # Errors
    /// As [`Cluster::sql`].
    pub async fn explain_sql(&self, tables: Vec<(LakeTable, String)>, query: &str) -> Result<String> {
        let (_, plan) = planned(&self.workers().await?, &tables, query).await?;
        Ok(display_plan_ascii(plan.as_ref(), false))
    }
}

/// Runs a plan to its first rows.
async fn begun(
    context: &SessionContext,
    plan: Arc<dyn ExecutionPlan>,
) -> Result<(SchemaRef, SendableRecordBatchStream)> {
    let mut rows = execute_stream(plan, context.task_ctx()).map_err(heard)?;
    let first = rows.try_next().await.map_err(heard)?;
    let schema = rows.schema();
    let rows = stream::iter(first.map(Ok)).chain(rows);
    Ok((Arc::clone(&schema), Box::pin(RecordBatchStreamAdapter::new(schema, rows))))
}

async fn planned(
    workers: &[Found],
    tables: &[(LakeTable, String)],
    query: &str,
) -> Result<(SessionContext, Arc<dyn ExecutionPlan>)> {
    // The engine has as many tasks as it knows workers, and runs single tasks in the client.
    let urls = workers.iter().flat_map(|worker| std::iter::repeat_n(worker.url.clone(), TASKS_A_WORKER));
    let state = SessionStateBuilder::new()
        .with_config(session_config())
        .with_default_features()
        .with_distributed_worker_resolver(Urls(urls.collect()))
        .with_distributed_channel_resolver(Channels::default())
        .with_distributed_user_codec(Codec(None))
        .with_distributed_desired_task_count_handler(tasks_wanted)
        .with_distributed_scale_up_leaf_node_handler(share_out)
        .with_distributed_planner()
        .build();
    let mut context = SessionContext::new_with_state(state);
    register_functions(&mut context)?;
    for (lake, uri) in tables {
        let table = Remote { place: Place::new(uri, lake.table()), lake: lake.clone() };
        context.register_table(lake.table().name(), Arc::new(table))?;
    }
    let planned = context.sql(query).await.map_err(|error| place_caret(job_error(error), query))?;
    let plan = planned.create_physical_plan().await?;
    Ok((context, plan))
}

fn tasks_wanted(event: DesiredTaskCountEvent<'_>) -> Option<DfResult<DesiredTaskCountEventResponse>> {
    let rows = event.plan.downcast_ref::<RowsExec>()?;
    Some(Ok(DesiredTaskCountEventResponse::desired(rows.parts.iter().map(Vec::len).sum::<usize>().max(1))))
}

fn share_out(event: ScaleUpLeafNodeEvent<'_>) -> Option<DfResult<ScaleUpLeafNodeEventResponse>> {
    let rows = event.plan.downcast_ref::<RowsExec>()?;
    let tasks = rows.shared_out(event.task_count).map_err(Into::into);
    let leaf = tasks.and_then(|tasks| DistributedLeafExec::try_new(Arc::clone(event.plan), tasks));
    Some(leaf.map(|leaf| ScaleUpLeafNodeEventResponse::new(Arc::new(leaf))))
}

/// A topic of the lake that workers read.
#[derive(Debug)]
struct Remote {
    place: Place,
    lake: LakeTable,
}

#[async_trait]
impl TableProvider for Remote {
    fn schema(&self) -> SchemaRef {
        self.lake.table().schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let columns = projection.cloned().unwrap_or_else(|| (0..self.schema().fields().len()).collect());
        let needed = needed_by(filters, self.lake.table());
        let (objects, _) = LakeTable::prune(self.lake.objects().await?, &needed.event_time);
        let shares: Vec<Share> = objects.iter().enumerate().map(|(number, object)| Share::of(number, object)).collect();
        let parts = shared_out(&shares, state.config().target_partitions().min(shares.len()).max(1));
        let wanted = Wanted::new(self.place.clone(), columns, &needed);
        Ok(Arc::new(RowsExec::try_new(wanted, parts, RowsSide::Client(self.lake.clone()))?))
    }
}
