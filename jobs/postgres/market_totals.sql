CREATE TABLE "market_totals" (
    "window_start" timestamp with time zone NOT NULL,
    "window_end" timestamp with time zone NOT NULL,
    "latest" timestamp with time zone,
    "total_number_of_events" bigint NOT NULL,
    "total_transfers" bigint NOT NULL,
    "total_items_transferred" numeric(76,0) NOT NULL,
    "total_sales" bigint NOT NULL,
    "unpriced_sales" bigint NOT NULL,
    "total_assets_sold" numeric(76,0) NOT NULL,
    "total_eth_volume" numeric(76,18) NOT NULL,
    "total_usd_volume" numeric(76,18) NOT NULL,
    "total_distinct_collections_sold" bigint NOT NULL,
    "total_listings" bigint NOT NULL,
    "total_bids" bigint NOT NULL,
    "total_offers" bigint NOT NULL,
    "total_cancellations" bigint NOT NULL,
    PRIMARY KEY ("window_start", "window_end")
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
