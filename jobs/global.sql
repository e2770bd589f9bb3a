-- What the market did as a whole, and its top collections, as rows of a metric each: one metric, one value.
-- The metrics are listed in jobs/README.md, which also says what is counted how.
SET job.var.top = '10';

CREATE VIEW traded AS
SELECT event_time, collection, quantity, amount_eth, amount_usd,
       event_type = 'item_transferred' AS transferred,
       event_type = 'item_sold' AS sold,
       event_type = 'item_listed' AS listed,
       event_type IN ('item_received_bid', 'item_received_offer') AS bid,
       event_type IN ('collection_offer', 'trait_offer') AS offered,
       event_type = 'item_cancelled' AS cancelled,
       amount_usd / NULLIF(quantity, 0) AS unit_usd
FROM market;

CREATE VIEW by_collection AS
SELECT window,
       collection,
       max(event_time) AS latest,
       count(*) AS events,
       count(*) FILTER (WHERE transferred) AS transfers,
       sum(quantity) FILTER (WHERE transferred) AS items_transferred,
       count(*) FILTER (WHERE sold) AS sales,
       count(*) FILTER (WHERE sold AND (amount_eth IS NULL OR amount_usd IS NULL)) AS unpriced_sales,
       sum(quantity) FILTER (WHERE sold) AS assets_sold,
       sum(amount_eth) FILTER (WHERE sold) AS eth,
       sum(amount_usd) FILTER (WHERE sold) AS usd,
       CASE WHEN sum(amount_usd) FILTER (WHERE sold) < CAST('1000000000000000000000000000000000000' AS DECIMAL(76, 36))
            THEN sum(amount_usd) FILTER (WHERE sold) END
            / NULLIF(sum(quantity) FILTER (WHERE sold AND amount_usd IS NOT NULL), 0) AS avg_usd,
       min(unit_usd) FILTER (WHERE sold) AS floor_usd,
       count(*) FILTER (WHERE listed) AS listings,
       count(*) FILTER (WHERE bid) AS bids,
       count(*) FILTER (WHERE offered) AS offers,
       count(*) FILTER (WHERE cancelled) AS cancellations
FROM traded
GROUP BY window(event_time, '${window}'), collection;

CREATE VIEW totals AS
SELECT window, max(latest) AS latest, sum(events) AS events, sum(transfers) AS transfers,
       sum(items_transferred) AS items_transferred, sum(sales) AS sales, sum(unpriced_sales) AS unpriced_sales,
       sum(assets_sold) AS assets_sold, sum(eth) AS eth, sum(usd) AS usd,
       count(collection) FILTER (WHERE sales > 0) AS collections_sold,
       sum(listings) AS listings, sum(bids) AS bids, sum(offers) AS offers, sum(cancellations) AS cancellations
FROM by_collection
GROUP BY window;

CREATE VIEW collections_by_sales AS
SELECT *, CAST(row_number() OVER (PARTITION BY window ORDER BY coalesce(usd, 0) DESC, collection) AS BIGINT) AS rank
FROM by_collection
WHERE sales > 0 AND collection IS NOT NULL;

CREATE VIEW collections_by_transfers AS
SELECT *, CAST(row_number() OVER (PARTITION BY window ORDER BY transfers DESC, collection) AS BIGINT) AS rank
FROM by_collection
WHERE transfers > 0 AND collection IS NOT NULL;

-- One row a rank: the rank is the key, so that a collection which falls out of the top leaves nothing behind.
CREATE VIEW top_by_sales AS
SELECT window, rank, max(collection) AS collection, max(latest) AS latest, max(sales) AS sales,
       max(coalesce(usd, 0)) AS usd, max(coalesce(eth, 0)) AS eth, max(floor_usd) AS floor_usd,
       max(avg_usd) AS avg_usd
FROM collections_by_sales
WHERE rank <= ${top}
GROUP BY window, rank;

CREATE VIEW top_by_transfers AS
SELECT window, rank, max(collection) AS collection, max(latest) AS latest, max(transfers) AS transfers,
       max(items_transferred) AS items_transferred
FROM collections_by_transfers
WHERE rank <= ${top}
GROUP BY window, rank;

CREATE VIEW total_metrics AS
SELECT window, latest, 'total_number_of_events' AS metric, CAST(events AS DOUBLE) AS value FROM totals
UNION ALL SELECT window, latest, 'total_transfers', CAST(transfers AS DOUBLE) FROM totals
UNION ALL SELECT window, latest, 'total_items_transferred',
    CAST(CAST(coalesce(items_transferred, 0) AS VARCHAR) AS DOUBLE) FROM totals
UNION ALL SELECT window, latest, 'total_sales', CAST(sales AS DOUBLE) FROM totals
UNION ALL SELECT window, latest, 'unpriced_sales', CAST(unpriced_sales AS DOUBLE) FROM totals
UNION ALL SELECT window, latest, 'total_assets_sold',
    CAST(CAST(coalesce(assets_sold, 0) AS VARCHAR) AS DOUBLE) FROM totals
UNION ALL SELECT window, latest, 'total_eth_volume',
    CAST(CAST(CAST(coalesce(eth, 0) AS DECIMAL(76, 18)) AS VARCHAR) AS DOUBLE) FROM totals
UNION ALL SELECT window, latest, 'total_usd_volume',
    CAST(CAST(CAST(coalesce(usd, 0) AS DECIMAL(76, 18)) AS VARCHAR) AS DOUBLE) FROM totals
UNION ALL SELECT window, latest, 'total_distinct_collections_sold', CAST(collections_sold AS DOUBLE) FROM totals
UNION ALL SELECT window, latest, 'total_listings', CAST(listings AS DOUBLE) FROM totals
UNION ALL SELECT window, latest, 'total_bids', CAST(bids AS DOUBLE) FROM totals
UNION ALL SELECT window, latest, 'total_offers', CAST(offers AS DOUBLE) FROM totals
UNION ALL SELECT window, latest, 'total_cancellations', CAST(cancellations AS DOUBLE) FROM totals;

-- The volume also under the name that the pages of all time ask for, where it is no price.
CREATE VIEW sales_metrics AS
SELECT window, latest, rank, collection, 'usd_volume' AS metric,
    CAST(CAST(CAST(usd AS DECIMAL(76, 18)) AS VARCHAR) AS DOUBLE) AS value FROM top_by_sales
UNION ALL SELECT window, latest, rank, collection, 'usd_price',
    CAST(CAST(CAST(usd AS DECIMAL(76, 18)) AS VARCHAR) AS DOUBLE) FROM top_by_sales
UNION ALL SELECT window, latest, rank, collection, 'eth_volume',
    CAST(CAST(CAST(eth AS DECIMAL(76, 18)) AS VARCHAR) AS DOUBLE) FROM top_by_sales
UNION ALL SELECT window, latest, rank, collection, 'sales_count', CAST(sales AS DOUBLE) FROM top_by_sales
UNION ALL SELECT window, latest, rank, collection, 'floor_usd_price',
    CAST(CAST(CAST(floor_usd AS DECIMAL(76, 18)) AS VARCHAR) AS DOUBLE) FROM top_by_sales
UNION ALL SELECT window, latest, rank, collection, 'avg_usd_price',
    CAST(CAST(CAST(avg_usd AS DECIMAL(76, 18)) AS VARCHAR) AS DOUBLE) FROM top_by_sales;

CREATE VIEW transfers_metrics AS
SELECT window, latest, rank, collection, 'transfers_count' AS metric,
    CAST(transfers AS DOUBLE) AS value FROM top_by_transfers
UNION ALL SELECT window, latest, rank, collection, 'items_transferred',
    CAST(CAST(coalesce(items_transferred, 0) AS VARCHAR) AS DOUBLE) FROM top_by_transfers;

SELECT window.start AS window_start,
       window.end AS window_end,
       concat(metric, '__${window_name}') AS metric,
       coalesce(window.end, latest) AS timestamp,
       '' AS collection,
       CAST(NULL AS BIGINT) AS rank,
       value
FROM total_metrics
UNION ALL
SELECT window.start, window.end, concat('top_collections_by_sales_volume_', metric, '__${window_name}'),
       coalesce(window.end, latest), collection, rank, value
FROM sales_metrics
UNION ALL
SELECT window.start, window.end, concat('top_collections_by_transfers_volume_', metric, '__${window_name}'),
       coalesce(window.end, latest), collection, rank, value
FROM transfers_metrics
