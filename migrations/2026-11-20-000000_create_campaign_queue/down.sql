-- With their users gone, direct calls that were set aside can never be put back.
DROP TABLE IF EXISTS call_queue_direct_kept;
DROP TABLE call_queue;
DROP TABLE campaigns;
DROP TABLE contacts;
DROP TABLE agents;
DROP TABLE users;
