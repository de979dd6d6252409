-- How often plugins failed on the order while it was held: what asks to be asked later does not count.
ALTER TABLE held ADD COLUMN faults INTEGER NOT NULL DEFAULT 0;
