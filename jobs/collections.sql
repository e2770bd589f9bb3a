-- What each collection did on the market, and its top assets, as rows of a metric each: one metric, one value.
-- The metrics are listed in jobs/README.md, which also says what is counted how.
SET job.var.top_assets = '20';
SET job.var.top_assets_all_time = '50';

CREATE VIEW traded AS
SELECT event_time, collection, nft_id, item_name, item_url, image_url, quantity, amount_eth, amount_usd,
       event_type = 'item_transferred' AS transferred,
       event_type = 'item_sold' AS sold,
       event_type = 'item_listed' AS listed,
       event_type IN ('item_received_bid', 'item_received_offer') AS bid,
       event_type IN ('collection_offer', 'trait_offer') AS offered,
       event_type = 'item_cancelled' AS cancelled,
       amount_eth / NULLIF(quantity, 0) AS unit_eth,
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
       CASE WHEN sum(amount_eth) FILTER (WHERE sold) < CAST('1000000000000000000000000000000000000' AS DECIMAL(76, 36))
            THEN sum(amount_eth) FILTER (WHERE sold) END
            / NULLIF(sum(quantity) FILTER (WHERE sold AND amount_eth IS NOT NULL), 0) AS avg_eth,
       CASE WHEN sum(amount_usd) FILTER (WHERE sold) < CAST('1000000000000000000000000000000000000' AS DECIMAL(76, 36))
            THEN sum(amount_usd) FILTER (WHERE sold) END
            / NULLIF(sum(quantity) FILTER (WHERE sold AND amount_usd IS NOT NULL), 0) AS avg_usd,
       min(unit_eth) FILTER (WHERE sold) AS floor_eth,
       min(unit_usd) FILTER (WHERE sold) AS floor_usd,
       min(unit_eth) FILTER (WHERE listed) AS listing_floor_eth,
       min(unit_usd) FILTER (WHERE listed) AS listing_floor_usd,
       count(*) FILTER (WHERE listed) AS listings,
       count(*) FILTER (WHERE bid) AS bids,
       count(*) FILTER (WHERE offered) AS offers,
       count(*) FILTER (WHERE cancelled) AS cancellations
FROM traded
GROUP BY window(event_time, '${window}'), collection;

CREATE VIEW collection_metrics AS
SELECT window, latest, collection, 'total_number_of_events' AS metric,
    CAST(events AS DOUBLE) AS value FROM by_collection
UNION ALL SELECT window, latest, collection, 'total_transfers', CAST(transfers AS DOUBLE) FROM by_collection
UNION ALL SELECT window, latest, collection, 'total_items_transferred',
    CAST(CAST(coalesce(items_transferred, 0) AS VARCHAR) AS DOUBLE) FROM by_collection
UNION ALL SELECT window, latest, collection, 'total_sales_count', CAST(sales AS DOUBLE) FROM by_collection
UNION ALL SELECT window, latest, collection, 'unpriced_sales', CAST(unpriced_sales AS DOUBLE) FROM by_collection
UNION ALL SELECT window, latest, collection, 'total_assets_sold',
    CAST(CAST(coalesce(assets_sold, 0) AS VARCHAR) AS DOUBLE) FROM by_collection
UNION ALL SELECT window, latest, collection, 'total_eth_volume',
    CAST(CAST(CAST(coalesce(eth, 0) AS DECIMAL(76, 18)) AS VARCHAR) AS DOUBLE) FROM by_collection
UNION ALL SELECT window, latest, collection, 'total_usd_volume',
    CAST(CAST(CAST(coalesce(usd, 0) AS DECIMAL(76, 18)) AS VARCHAR) AS DOUBLE) FROM by_collection
UNION ALL SELECT window, latest, collection, 'floor_assets_eth_price',
    CAST(CAST(CAST(floor_eth AS DECIMAL(76, 18)) AS VARCHAR) AS DOUBLE) FROM by_collection
UNION ALL SELECT window, latest, collection, 'floor_assets_usd_price',
    CAST(CAST(CAST(floor_usd AS DECIMAL(76, 18)) AS VARCHAR) AS DOUBLE) FROM by_collection
UNION ALL SELECT window, latest, collection, 'avg_assets_eth_price',
    CAST(CAST(CAST(avg_eth AS DECIMAL(76, 18)) AS VARCHAR) AS DOUBLE) FROM by_collection
UNION ALL SELECT window, latest, collection, 'avg_assets_usd_price',
    CAST(CAST(CAST(avg_usd AS DECIMAL(76, 18)) AS VARCHAR) AS DOUBLE) FROM by_collection
UNION ALL SELECT window, latest, collection, 'total_listings', CAST(listings AS DOUBLE) FROM by_collection
UNION ALL SELECT window, latest, collection, 'floor_listings_eth_price',
    CAST(CAST(CAST(listing_floor_eth AS DECIMAL(76, 18)) AS VARCHAR) AS DOUBLE) FROM by_collection
UNION ALL SELECT window, latest, collection, 'floor_listings_usd_price',
    CAST(CAST(CAST(listing_floor_usd AS DECIMAL(76, 18)) AS VARCHAR) AS DOUBLE) FROM by_collection
UNION ALL SELECT window, latest, collection, 'total_bids', CAST(bids AS DOUBLE) FROM by_collection
UNION ALL SELECT window, latest, collection, 'total_offers', CAST(offers AS DOUBLE) FROM by_collection
UNION ALL SELECT window, latest, collection, 'total_cancellations', CAST(cancellations AS DOUBLE) FROM by_collection;

CREATE VIEW by_asset AS
SELECT window,
       collection,
       nft_id,
       max(event_time) AS latest,
       max(item_name) AS item_name,
       max(item_url) AS item_url,
       max(image_url) AS image_url,
       count(*) FILTER (WHERE transferred) AS transfers,
       count(*) FILTER (WHERE sold) AS sales,
       coalesce(sum(amount_usd) FILTER (WHERE sold), 0) AS usd
FROM traded
WHERE (transferred OR sold) AND nft_id IS NOT NULL
GROUP BY window(event_time, '${window}'), collection, nft_id;

CREATE VIEW distinct_assets AS
SELECT window, collection, max(latest) AS latest, count(*) AS assets
FROM by_asset
WHERE sales > 0
GROUP BY window, collection;

CREATE VIEW ranked_by_sales AS
SELECT *, CAST(row_number() OVER (PARTITION BY window, collection ORDER BY usd DESC, nft_id) AS BIGINT) AS rank
FROM by_asset
WHERE sales > 0;

CREATE VIEW ranked_by_transfers AS
SELECT *, CAST(row_number() OVER (PARTITION BY window, collection ORDER BY transfers DESC, nft_id) AS BIGINT) AS rank
FROM by_asset
WHERE transfers > 0;

-- One row a rank: the rank is the key, so that an asset which falls out of the top leaves nothing behind.
CREATE VIEW top_by_sales AS
SELECT window, collection, rank, max(nft_id) AS nft_id, max(item_name) AS item_name, max(item_url) AS item_url,
       max(image_url) AS image_url, max(latest) AS latest, max(usd) AS usd
FROM ranked_by_sales
WHERE rank <= CASE WHEN window.end IS NULL THEN ${top_assets_all_time} ELSE ${top_assets} END
GROUP BY window, collection, rank;

CREATE VIEW top_by_transfers AS
SELECT window, collection, rank, max(nft_id) AS nft_id, max(item_name) AS item_name, max(item_url) AS item_url,
       max(image_url) AS image_url, max(latest) AS latest, max(transfers) AS transfers
FROM ranked_by_transfers
WHERE window.end IS NOT NULL OR rank <= ${top_assets_all_time}
GROUP BY window, collection, rank;

SELECT window.start AS window_start,
       window.end AS window_end,
       concat('collection_', metric, '__${window_name}') AS metric,
       coalesce(window.end, latest) AS timestamp,
       collection,
       CAST(NULL AS BIGINT) AS rank,
       value,
       CAST(NULL AS VARCHAR) AS nft_id,
       CAST(NULL AS VARCHAR) AS asset_name,
       CAST(NULL AS VARCHAR) AS asset_url,
       CAST(NULL AS VARCHAR) AS image_url
FROM collection_metrics
UNION ALL
SELECT window.start, window.end, 'collection_total_distinct_assets_sold__${window_name}',
       coalesce(window.end, latest), collection, NULL, CAST(assets AS DOUBLE), NULL, NULL, NULL, NULL
FROM distinct_assets
UNION ALL
-- The name of the windowed rows, and the one that the pages of all time ask for.
SELECT window.start, window.end, concat('collection_top_assets_by_', metric, '__${window_name}'),
       coalesce(window.end, latest), collection, rank, CAST(CAST(CAST(usd AS DECIMAL(76, 18)) AS VARCHAR) AS DOUBLE),
       nft_id, coalesce(item_name, nft_id), item_url, image_url
FROM top_by_sales CROSS JOIN (VALUES ('sales_volume'), ('usd_volume')) AS metrics (metric)
UNION ALL
SELECT window.start, window.end, 'collection_top_assets_by_transfers__${window_name}',
       coalesce(window.end, latest), collection, rank, CAST(transfers AS DOUBLE),
       nft_id, coalesce(item_name, nft_id), item_url, image_url
FROM top_by_transfers
