//! Landing on a real store: the contract that the directory and the memory keep in `ingest`'s own tests.

mod minio {
    use tests::{lake_contract, s3};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_lake_on_minio_keeps_the_contract() {
        let Some(s3) = s3() else { return };
        for (part, time) in lake_contract::run_all(&s3.store("contract")).await {
            println!("MinIO: {part} in {time:?}");
        }
    }
}
