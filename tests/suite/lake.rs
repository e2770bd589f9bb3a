//! Landing on a real store: the contract that the directory and the memory keep in `ingest`'s own tests.

mod minio {
    use std::sync::Arc;
    use std::time::Duration;

    use event::{Clock, Table};
    use ingest::lake::{Catalog, CompactProgress, CompactSettings, compact, expire, sweep};
    use processor::lake::{LakeTable, VerifyProgress, VerifySettings, verify};
    use tests::lake_contract::{Bench, HOUR, NOW, TOPIC, small};
    use tests::{lake_contract, s3};
    use tokio_util::sync::CancellationToken;

    /// Everything that compaction and expiry ask of a store: puts on free names only, deletes, listings.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_lake_on_minio_is_compacted_swept_and_expired() {
        let Some(s3) = s3() else { return };
        let store = s3.store("upkeep");
        let mut bench = Bench::new(&store, "upkeep", 3).await;
        bench.receive((0..900).map(|at| NOW + at * HOUR / 200)).await;
        bench.land(small(20)).await.expect("landed");
        let raw = bench.check().await.len();
        let lake = LakeTable::new(Arc::clone(&store), &bench.prefix, TOPIC);
        let clock = Clock::mock(NOW + 8 * HOUR);
        let (prefix, topic) = (bench.prefix.clone(), TOPIC.to_owned());
        let catalog = Catalog { store, prefix, topic, table: Table::Events, clock: clock.clone() };
        let grace = Duration::from_secs(3_600);
        let settings = CompactSettings::new(std::env::temp_dir());
        // Two at once: one wins each version, the other looks again.
        let stop = CancellationToken::new();
        let run = || compact(&catalog, &settings, Arc::new(CompactProgress::default()), &stop);
        let (one, other) = tokio::join!(run(), run());
        one.and(other).expect("compacted");
        assert_eq!(sweep(&catalog, grace, false).await.expect("swept").raw_objects, 0, "the grace is not over");
        clock.set(NOW + 10 * HOUR);
        assert_eq!(sweep(&catalog, grace, false).await.expect("swept").raw_objects, raw as u64);
        let settings = VerifySettings { content: true, topic: Some((Arc::clone(&bench.log), TOPIC.to_owned())) };
        let progress = VerifyProgress::default();
        let mut note = |finding| panic!("{finding:?}");
        verify(&lake, &settings, &progress, &mut note).await.expect("verified");
        assert_eq!(progress.records.into_inner(), 900);
        let removed = expire(&catalog, grace, false).await.expect("expired").expect("all of it");
        assert_eq!((removed.rows, lake.objects().await.expect("listed").len()), (900, 0));
        clock.set(NOW + 12 * HOUR);
        assert!(sweep(&catalog, grace, false).await.expect("swept").files > 0);
        // The next object starts where the covered end is.
        bench.receive([NOW + 12 * HOUR]).await;
        bench.land(small(20)).await.expect("landed");
        let objects = lake.objects().await.expect("listed");
        assert_eq!(objects.iter().map(|object| object.rows).collect::<Vec<_>>(), [Some(1)]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_lake_on_minio_keeps_the_contract() {
        let Some(s3) = s3() else { return };
        for (part, time) in lake_contract::run_all(&s3.store("contract")).await {
            println!("MinIO: {part} in {time:?}");
        }
    }
}
