-- First and last number of an order's records in the log of its slot, where one decision made several: it is PUBLISHED when
-- Kafka has the last of them. NULL: it has one at most, and that is it.
ALTER TABLE orders ADD COLUMN first_record INTEGER;
ALTER TABLE orders ADD COLUMN last_record INTEGER
    CHECK ((first_record IS NULL) = (last_record IS NULL) AND (first_record IS NULL OR first_record <= last_record));
