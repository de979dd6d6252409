-- The last place that was given to a held order of the slot. Until now places were numbers of the one counter.
ALTER TABLE decide_cursors ADD COLUMN last_place INTEGER NOT NULL DEFAULT 0;
UPDATE decide_cursors SET last_place = (SELECT value FROM meta WHERE name = 'sequence');
