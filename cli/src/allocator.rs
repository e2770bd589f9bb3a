//! The allocator of the process.

/// A stream allocates on one thread and frees on another, day and night, and librdkafka does too; the C library's
/// allocator then holds ever more of what is free (docs/benchmarks.md, "Memory"). This one serves the C code as well.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
