-- What each collection did on the market: a row a window and collection.
CREATE VIEW traded AS
SELECT event_time, collection, nft_id, quantity, amount_eth, amount_usd,
       event_type = 'item_transferred' AS transferred,
       event_type = 'item_sold' AS sold,
       event_type = 'item_listed' AS listed,
       event_type IN ('item_received_bid', 'item_received_offer') AS bid,
       event_type IN ('collection_offer', 'trait_offer') AS offered,
       event_type = 'item_cancelled' AS cancelled,
       amount_eth / NULLIF(quantity, 0) AS unit_eth,
       amount_usd / NULLIF(quantity, 0) AS unit_usd
FROM market;

SELECT window.start AS window_start,
       window.end AS window_end,
       collection,
       max(event_time) AS latest,
       count(*) AS total_number_of_events,
       count(*) FILTER (WHERE transferred) AS total_transfers,
       coalesce(sum(quantity) FILTER (WHERE transferred), 0) AS total_items_transferred,
       count(*) FILTER (WHERE sold) AS total_sales_count,
       count(*) FILTER (WHERE sold AND (amount_eth IS NULL OR amount_usd IS NULL)) AS unpriced_sales,
       coalesce(sum(quantity) FILTER (WHERE sold), 0) AS total_assets_sold,
       count(DISTINCT nft_id) FILTER (WHERE sold) AS total_distinct_assets_sold,
       CAST(coalesce(sum(amount_eth) FILTER (WHERE sold), 0) AS DECIMAL(76, 18)) AS total_eth_volume,
       CAST(coalesce(sum(amount_usd) FILTER (WHERE sold), 0) AS DECIMAL(76, 18)) AS total_usd_volume,
       CAST(min(unit_eth) FILTER (WHERE sold) AS DECIMAL(76, 18)) AS floor_assets_eth_price,
       CAST(min(unit_usd) FILTER (WHERE sold) AS DECIMAL(76, 18)) AS floor_assets_usd_price,
       CAST(CASE WHEN sum(amount_eth) FILTER (WHERE sold)
            < CAST('1000000000000000000000000000000000000' AS DECIMAL(76, 36))
            THEN sum(amount_eth) FILTER (WHERE sold) END
            / NULLIF(sum(quantity) FILTER (WHERE sold AND amount_eth IS NOT NULL), 0) AS DECIMAL(76, 18))
            AS avg_assets_eth_price,
       CAST(CASE WHEN sum(amount_usd) FILTER (WHERE sold)
            < CAST('1000000000000000000000000000000000000' AS DECIMAL(76, 36))
            THEN sum(amount_usd) FILTER (WHERE sold) END
            / NULLIF(sum(quantity) FILTER (WHERE sold AND amount_usd IS NOT NULL), 0) AS DECIMAL(76, 18))
            AS avg_assets_usd_price,
       count(*) FILTER (WHERE listed) AS total_listings,
       CAST(min(unit_eth) FILTER (WHERE listed) AS DECIMAL(76, 18)) AS floor_listings_eth_price,
       CAST(min(unit_usd) FILTER (WHERE listed) AS DECIMAL(76, 18)) AS floor_listings_usd_price,
       count(*) FILTER (WHERE bid) AS total_bids,
       count(*) FILTER (WHERE offered) AS total_offers,
       count(*) FILTER (WHERE cancelled) AS total_cancellations
FROM traded
GROUP BY window(event_time, '${window}'), collection
