-- The top collections of a window, by sales and by transfers: a row a rank.
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

CREATE VIEW ranked AS
SELECT *, 'sales' AS ranked_by,
       row_number() OVER (PARTITION BY window ORDER BY coalesce(usd, 0) DESC, collection) AS rank
FROM by_collection
WHERE sales > 0 AND collection IS NOT NULL
UNION ALL
SELECT *, 'transfers' AS ranked_by,
       row_number() OVER (PARTITION BY window ORDER BY transfers DESC, collection) AS rank
FROM by_collection
WHERE transfers > 0 AND collection IS NOT NULL;

-- The rank is the key, so that a collection which falls out of the top leaves nothing behind.
SELECT window.start AS window_start,
       window.end AS window_end,
       ranked_by,
       CAST(rank AS BIGINT) AS rank,
       max(collection) AS collection,
       max(latest) AS latest,
       CAST(max(coalesce(usd, 0)) AS DECIMAL(76, 18)) AS usd_volume,
       CAST(max(coalesce(eth, 0)) AS DECIMAL(76, 18)) AS eth_volume,
       max(sales) AS sales_count,
       max(unpriced_sales) AS unpriced_sales,
       CAST(max(floor_usd) AS DECIMAL(76, 18)) AS floor_usd_price,
       CAST(max(avg_usd) AS DECIMAL(76, 18)) AS avg_usd_price,
       max(transfers) AS transfers_count,
       max(coalesce(items_transferred, 0)) AS items_transferred
FROM ranked
WHERE rank <= ${top}
GROUP BY window, ranked_by, rank
