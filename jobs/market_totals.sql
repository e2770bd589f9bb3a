-- What the market did as a whole: a row a window.
CREATE VIEW traded AS
SELECT event_time, collection, quantity, amount_eth, amount_usd,
       event_type = 'item_transferred' AS transferred,
       event_type = 'item_sold' AS sold,
       event_type = 'item_listed' AS listed,
       event_type IN ('item_received_bid', 'item_received_offer') AS bid,
       event_type IN ('collection_offer', 'trait_offer') AS offered,
       event_type = 'item_cancelled' AS cancelled
FROM market;

SELECT window.start AS window_start,
       window.end AS window_end,
       max(event_time) AS latest,
       count(*) AS total_number_of_events,
       count(*) FILTER (WHERE transferred) AS total_transfers,
       coalesce(sum(quantity) FILTER (WHERE transferred), 0) AS total_items_transferred,
       count(*) FILTER (WHERE sold) AS total_sales,
       count(*) FILTER (WHERE sold AND (amount_eth IS NULL OR amount_usd IS NULL)) AS unpriced_sales,
       coalesce(sum(quantity) FILTER (WHERE sold), 0) AS total_assets_sold,
       CAST(coalesce(sum(amount_eth) FILTER (WHERE sold), 0) AS DECIMAL(76, 18)) AS total_eth_volume,
       CAST(coalesce(sum(amount_usd) FILTER (WHERE sold), 0) AS DECIMAL(76, 18)) AS total_usd_volume,
       count(DISTINCT collection) FILTER (WHERE sold) AS total_distinct_collections_sold,
       count(*) FILTER (WHERE listed) AS total_listings,
       count(*) FILTER (WHERE bid) AS total_bids,
       count(*) FILTER (WHERE offered) AS total_offers,
       count(*) FILTER (WHERE cancelled) AS total_cancellations
FROM traded
GROUP BY window(event_time, '${window}')
