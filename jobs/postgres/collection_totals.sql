CREATE TABLE "collection_totals" (
    "window_start" timestamp with time zone,
    "window_end" timestamp with time zone,
    "collection" text,
    "latest" timestamp with time zone,
    "total_number_of_events" bigint,
    "total_transfers" bigint,
    "total_items_transferred" numeric(76,0),
    "total_sales_count" bigint,
    "unpriced_sales" bigint,
    "total_assets_sold" numeric(76,0),
    "total_distinct_assets_sold" bigint,
    "total_eth_volume" numeric(76,18),
    "total_usd_volume" numeric(76,18),
    "floor_assets_eth_price" numeric(76,18),
    "floor_assets_usd_price" numeric(76,18),
    "avg_assets_eth_price" numeric(76,18),
    "avg_assets_usd_price" numeric(76,18),
    "total_listings" bigint,
    "floor_listings_eth_price" numeric(76,18),
    "floor_listings_usd_price" numeric(76,18),
    "total_bids" bigint,
    "total_offers" bigint,
    "total_cancellations" bigint,
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
