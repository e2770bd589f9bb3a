CREATE TABLE "collections" (
    "window_start" timestamp with time zone,
    "window_end" timestamp with time zone,
    "metric" text,
    "timestamp" timestamp with time zone,
    "collection" text,
    "rank" bigint,
    "value" double precision,
    "nft_id" text,
    "asset_name" text,
    "asset_url" text,
    "image_url" text,
    "row_key" bytea NOT NULL,
    PRIMARY KEY ("row_key")
);

-- How far each topic is in its table.
CREATE TABLE IF NOT EXISTS tidegate_sink (
    table_name text NOT NULL,
    topic text NOT NULL,
    next_offsets jsonb NOT NULL,
    run text NOT NULL,
    place text NOT NULL,
    since timestamptz NOT NULL,
    PRIMARY KEY (table_name, topic)
);
