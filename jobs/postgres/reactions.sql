CREATE TABLE "reactions" (
    "window_start" timestamp with time zone NOT NULL,
    "window_end" timestamp with time zone NOT NULL,
    "rank" numeric(20,0) NOT NULL,
    "event_id" text,
    "reactions" bigint NOT NULL,
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
