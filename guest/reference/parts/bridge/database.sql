-- The bridge asks Synapse's database who a Matrix user signed in as. It may read this one table, and nothing else.
CREATE ROLE rave_bridge LOGIN CONNECTION LIMIT 5;
GRANT CONNECT ON DATABASE synapse TO rave_bridge;
\connect synapse
GRANT SELECT ON user_external_ids TO rave_bridge;
