//! Our operators as bytes.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::convert::{IpcSchemaEncoder, fb_to_schema};
use arrow::ipc::root_as_schema;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use serde::{Deserialize, Serialize};

use super::order::{Order, Share};
use super::pane::PaneExec;
use super::rows::{RowsExec, RowsSide, Wanted};
use super::window::WindowExec;
use super::worker::Side;
use crate::error::{Error, ErrorKind};

/// Writes operators for a worker; reads them, on a worker, with what it runs them on.
#[derive(Debug)]
pub(super) struct Codec(pub(super) Option<Arc<Side>>);

/// Schemas are flatbuffers, in hexadecimal.
#[derive(Serialize, Deserialize)]
enum Node {
    Pane { order: Order, schema: String, objects: Vec<Share> },
    Window { order: Order, schema: String },
    Rows { wanted: Wanted, parts: Vec<Vec<Share>> },
}

fn encoded(schema: &Schema) -> String {
    hex::encode(IpcSchemaEncoder::new().schema_to_fb(schema).finished_data())
}

fn decoded(schema: &str) -> DfResult<SchemaRef> {
    let bytes = hex::decode(schema).map_err(unread)?;
    Ok(Arc::new(fb_to_schema(root_as_schema(&bytes).map_err(unread)?)))
}

fn unread(error: impl std::fmt::Display) -> DataFusionError {
    Error::new(ErrorKind::Config, "could not read what the client asked for")
        .with_hint("client and workers have to be the same build of tidegate")
        .with_source(error.to_string())
        .into()
}

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        _: &TaskContext,
        _: &dyn PhysicalProtoConverterExtension,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let Some(side) = self.0.clone() else {
            return Err(Error::internal("operators are read by workers only").into());
        };
        match (serde_json::from_slice(buf).map_err(unread)?, inputs) {
            (Node::Pane { order, schema, objects }, []) => {
                Ok(Arc::new(PaneExec::new(Arc::new(order), objects, decoded(&schema)?, Some(side))))
            }
            (Node::Window { order, schema }, [input]) => {
                Ok(Arc::new(WindowExec::new(Arc::new(order), Arc::clone(input), decoded(&schema)?, Some(side))))
            }
            (Node::Rows { wanted, parts }, []) => {
                Ok(Arc::new(RowsExec::try_new(wanted, parts, RowsSide::Worker(side))?))
            }
            _ => Err(Error::internal("an operator came with inputs of another").into()),
        }
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buf: &mut Vec<u8>,
        _: &dyn PhysicalProtoConverterExtension,
    ) -> DfResult<()> {
        let schema = encoded(&node.schema());
        let node = if let Some(pane) = node.downcast_ref::<PaneExec>() {
            Node::Pane { order: Order::clone(&pane.order), schema, objects: pane.objects.clone() }
        } else if let Some(window) = node.downcast_ref::<WindowExec>() {
            Node::Window { order: Order::clone(&window.order), schema }
        } else if let Some(rows) = node.downcast_ref::<RowsExec>() {
            Node::Rows { wanted: rows.wanted.clone(), parts: rows.parts.clone() }
        } else {
            return Err(Error::internal(format!("`{}` is no operator of ours", node.name())).into());
        };
        serde_json::to_writer(buf, &node)
            .map_err(|error| Error::internal("could not write an operator").with_source(error).into())
    }
}
