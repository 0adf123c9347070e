-- The rest of a campaign's life: contacts are listed one by one, added, withdrawn and queued again,
-- and a campaign is deleted without its calls and figures.
--
-- Locks: campaigns and their lists, briefly; for as long as two indexes take to build, what moves in
-- the queue: some three seconds for a million ended calls. It only adds: servers of the version
-- before go on, and still list what was deleted.

ALTER TABLE campaigns
    ADD COLUMN deleted_at timestamptz,
    ADD CONSTRAINT campaigns_deleted_is_over CHECK (deleted_at IS NULL OR status IN ('completed', 'cancelled'));
COMMENT ON COLUMN campaigns.deleted_at IS
    'When its user deleted it. It is listed no more; its row, its calls and its figures stay.';

-- Lists -----------------------------------------------------------------------------------------

ALTER TABLE campaign_contacts
    ADD COLUMN item_id uuid,
    ADD COLUMN earlier_item_id uuid,
    ADD COLUMN earlier_attempts tally NOT NULL DEFAULT 0;
COMMENT ON COLUMN campaign_contacts.item_id IS
    'The item that stands for this contact: waiting, up, or over. Null until name_listed_items has looked, for contacts listed by a server of the version before.';
COMMENT ON COLUMN campaign_contacts.earlier_item_id IS 'The one before, if the contact was queued again.';
COMMENT ON COLUMN campaign_contacts.earlier_attempts IS 'Attempts of all items before.';
CREATE UNIQUE INDEX campaign_contacts_in_order ON campaign_contacts (campaign_id, ordinal);
CREATE INDEX campaign_contacts_unnamed ON campaign_contacts (campaign_id) WHERE item_id IS NULL;

CREATE FUNCTION name_listed_items(p_campaign uuid) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE campaign_contacts m SET item_id = coalesce(i.id, '00000000-0000-0000-0000-000000000000')
    FROM campaign_contacts l
    LEFT JOIN (
        SELECT DISTINCT ON (u.contact_id) u.contact_id, u.id FROM (
            SELECT q.contact_id, q.id, 'infinity'::timestamptz AS until FROM call_queue q
            WHERE q.campaign_id = p_campaign AND q.call_type = 'campaign' AND q.wakes_at IS NULL
            UNION ALL
            SELECT q.contact_id, q.id, 'infinity' FROM call_queue q
            WHERE q.campaign_id = p_campaign AND q.call_type = 'campaign' AND q.wakes_at IS NOT NULL
            UNION ALL
            SELECT a.contact_id, a.item_id, 'infinity' FROM active_calls a
            WHERE a.user_id = (SELECT c.user_id FROM campaigns c WHERE c.id = p_campaign) AND a.campaign_id = p_campaign
            UNION ALL
            SELECT h.contact_id, h.id, h.finished_at FROM call_queue_history h WHERE h.campaign_id = p_campaign
        ) u ORDER BY u.contact_id, u.until DESC
    ) i ON i.contact_id = l.contact_id
    WHERE m.campaign_id = p_campaign AND m.item_id IS NULL
        AND l.campaign_id = m.campaign_id AND l.contact_id = m.contact_id;
END
$$;
COMMENT ON FUNCTION name_listed_items(uuid) IS
    'Finds the items of contacts that were listed by a server of the version before; the nil id for none. Looks at each of the campaign once. Needs the campaign''s list lock.';

CREATE FUNCTION count_laid_out(p_campaign uuid, p_calls integer, p_failed integer, p_cancelled integer, p_expired integer)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_campaign campaign_slots;
BEGIN
    PERFORM fold_campaign_tallies();
    UPDATE campaign_slots SET due = due + p_calls, tail = tail + p_calls, failed = failed - p_failed,
        cancelled = cancelled - p_cancelled, expired = expired - p_expired
    WHERE campaign_id = p_campaign
    RETURNING * INTO v_campaign;
    IF v_campaign.open THEN
        PERFORM change_slots(ARRAY[v_campaign.user_id], ARRAY[0], ARRAY[0], ARRAY[0], ARRAY[0], ARRAY[p_calls], NULL);
    END IF;
END
$$;
COMMENT ON FUNCTION count_laid_out(uuid, integer, integer, integer, integer) IS
    'Counts calls that this transaction laid out behind a campaign''s tail, all due, with the numbers that follow it; of contacts queued again, by how they had ended, so that each is counted once; below zero for contacts that are over as they are listed. Needs lock_engine, and the campaign''s list lock taken before it.';

-- Planned as the engine's functions are.
ALTER FUNCTION count_laid_out(uuid, integer, integer, integer, integer) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION count_laid_out(uuid, integer, integer, integer, integer) SET enable_seqscan = off;
ALTER FUNCTION count_laid_out(uuid, integer, integer, integer, integer) SET enable_bitmapscan = off;
ALTER FUNCTION count_laid_out(uuid, integer, integer, integer, integer) SET enable_mergejoin = off;
ALTER FUNCTION count_laid_out(uuid, integer, integer, integer, integer) SET jit = off;

-- Last, as these keep calls from moving while they are built: a campaign's calls that sleep, and
-- those that are over by how they ended.
CREATE INDEX call_queue_campaign_asleep ON call_queue (campaign_id, wakes_at, position)
    WHERE call_type = 'campaign' AND wakes_at IS NOT NULL;
CREATE INDEX call_queue_history_of_campaign ON call_queue_history (campaign_id, status, finished_at, id)
    WHERE campaign_id IS NOT NULL;

INSERT INTO additive_migrations (version) VALUES ('20261126000002');
