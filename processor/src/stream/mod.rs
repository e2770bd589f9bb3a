//! Time, decided without any input or output: windows, panes and watermarks.
//!
//! Pure: values in, values out. Nothing here names a runtime, a query engine or a log (a house rule checks it).

pub(crate) mod watermark;
pub(crate) mod window;
