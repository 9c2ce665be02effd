-- One database for each service, owned by its role and closed to every other. Roles have no password: they come over the socket.
CREATE ROLE gitlab LOGIN;
CREATE ROLE synapse LOGIN;
CREATE ROLE grafana LOGIN;

CREATE DATABASE gitlab OWNER gitlab TEMPLATE template0 ENCODING 'UTF8';
CREATE DATABASE grafana OWNER grafana TEMPLATE template0 ENCODING 'UTF8';
-- Synapse refuses any other collation.
CREATE DATABASE synapse OWNER synapse TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';

REVOKE ALL ON DATABASE gitlab, synapse, grafana, postgres, template1 FROM PUBLIC;
