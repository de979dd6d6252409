-- What is due is read route by route, so that a route whose plugins take long costs the others nothing.
DROP INDEX held_by_due;
CREATE INDEX held_by_route_due ON held (route, due_at) WHERE due_at IS NOT NULL;
