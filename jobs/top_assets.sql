-- The top assets of each collection in a window, by sales and by transfers: a row a collection and rank.
SET job.var.top_assets = '20';
SET job.var.top_assets_all_time = '50';

CREATE VIEW traded AS
SELECT event_time, collection, nft_id, item_name, item_url, image_url, amount_eth, amount_usd,
       event_type = 'item_transferred' AS transferred,
       event_type = 'item_sold' AS sold
FROM market;

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
       coalesce(sum(amount_usd) FILTER (WHERE sold), 0) AS usd,
       coalesce(sum(amount_eth) FILTER (WHERE sold), 0) AS eth
FROM traded
WHERE (transferred OR sold) AND nft_id IS NOT NULL
GROUP BY window(event_time, '${window}'), collection, nft_id;

CREATE VIEW ranked AS
SELECT *, 'sales' AS ranked_by,
       row_number() OVER (PARTITION BY window, collection ORDER BY usd DESC, nft_id) AS rank
FROM by_asset
WHERE sales > 0
UNION ALL
SELECT *, 'transfers' AS ranked_by,
       row_number() OVER (PARTITION BY window, collection ORDER BY transfers DESC, nft_id) AS rank
FROM by_asset
WHERE transfers > 0;

-- The rank is the key, so that an asset which falls out of the top leaves nothing behind.
SELECT window.start AS window_start,
       window.end AS window_end,
       collection,
       ranked_by,
       CAST(rank AS BIGINT) AS rank,
       max(nft_id) AS nft_id,
       max(coalesce(item_name, nft_id)) AS asset_name,
       max(item_url) AS asset_url,
       max(image_url) AS image_url,
       max(latest) AS latest,
       CAST(max(usd) AS DECIMAL(76, 18)) AS usd_volume,
       CAST(max(eth) AS DECIMAL(76, 18)) AS eth_volume,
       max(sales) AS sales_count,
       max(transfers) AS transfers_count
FROM ranked
WHERE CASE WHEN window.end IS NULL THEN rank <= ${top_assets_all_time}
           WHEN ranked_by = 'sales' THEN rank <= ${top_assets}
           -- Of a window, every asset that moved.
           ELSE true END
GROUP BY window, collection, ranked_by, rank
