//! A batch over many machines: the stages of a job's run as operators of DataFusion, on the workers of
//! datafusion-distributed.
//!
//! ```text
//! client   queries, and cuts above others                 GatherExec   all closed windows, by their ends
//! ───────────────────────────────────────────────────────────── network
//! workers  panes of some groups, merged and closed        WindowExec
//! ───────────────────────────────────────────────────────────── network, by hash of the group
//! workers  rows of some objects, to panes                 PaneExec
//! ```
//!
//! It is the engine of a local batch, cut in two: readers and the merging of panes run on workers, what is above the
//! windows runs with the client. Read in this order: `order` (what a worker is told), `layout` (what travels),
//! `pane`, `window`, `gather` (the operators), `codec`, `worker`, `client`. A query of `tidegate sql` is DataFusion's own plan,
//! shared out by the engine's planner over our leaf (`rows`, `sql`). docs/decisions/0025 says why this engine.

mod channel;
mod client;
mod codec;
mod fault;
mod gather;
mod layout;
mod order;
mod pane;
mod rows;
mod sql;
#[cfg(test)]
mod tests;
mod window;
mod worker;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::{Partitioning, PlanProperties};

pub use client::Cluster;
pub use worker::{OpenLake, Worker, version};

/// Of an operator with one partition a task.
fn properties(schema: SchemaRef) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(schema),
        Partitioning::UnknownPartitioning(1),
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
}
