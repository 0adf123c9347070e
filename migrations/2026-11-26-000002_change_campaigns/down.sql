DROP INDEX call_queue_history_of_campaign;
DROP INDEX call_queue_campaign_asleep;
DROP FUNCTION count_laid_out(uuid, integer, integer, integer, integer);
DROP FUNCTION name_listed_items(uuid);
DROP INDEX campaign_contacts_unnamed;
DROP INDEX campaign_contacts_in_order;
ALTER TABLE campaign_contacts
    DROP COLUMN earlier_attempts,
    DROP COLUMN earlier_item_id,
    DROP COLUMN item_id;
-- What was deleted is listed again.
ALTER TABLE campaigns
    DROP CONSTRAINT campaigns_deleted_is_over,
    DROP COLUMN deleted_at;
DELETE FROM additive_migrations WHERE version = '20261126000002';
