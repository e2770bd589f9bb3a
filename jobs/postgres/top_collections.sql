CREATE TABLE "top_collections" (
    "window_start" timestamp with time zone,
    "window_end" timestamp with time zone,
    "ranked_by" text,
    "rank" bigint,
    "collection" text,
    "latest" timestamp with time zone,
    "usd_volume" numeric(76,18),
    "eth_volume" numeric(76,18),
    "sales_count" bigint,
    "unpriced_sales" bigint,
    "floor_usd_price" numeric(76,18),
    "avg_usd_price" numeric(76,18),
    "transfers_count" bigint,
    "items_transferred" numeric(76,0),
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
