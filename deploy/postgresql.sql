-- The database of a farm's journal and its two roles; psql runs it as a superuser, once, or again on a farm that runs already:
--
--     psql --host=HOST --username=postgres --file=deploy/postgresql.sql
--
-- Afterwards give each role its password, by psql's \password, and put it into the Secret that the chart's values name.
\set ON_ERROR_STOP on

-- The coordinator's: it owns the database, makes the tables and writes them.
SELECT 'CREATE ROLE kernfarm LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'kernfarm') \gexec
-- The signer's: it reads. Who has taken over the coordinator can make it sign only what the journal says was built, and who has taken
-- over the signer can change nothing here.
SELECT 'CREATE ROLE kernfarm_signer LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'kernfarm_signer') \gexec
SELECT 'CREATE DATABASE kernfarm OWNER kernfarm ENCODING ''UTF8'' TEMPLATE template0'
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'kernfarm') \gexec
\connect kernfarm

REVOKE ALL ON DATABASE kernfarm FROM PUBLIC;
GRANT CONNECT ON DATABASE kernfarm TO kernfarm_signer;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO kernfarm;
GRANT USAGE ON SCHEMA public TO kernfarm_signer;
-- The tables that are there, and those that the coordinator makes later: it makes them when it first starts, after the signer.
GRANT SELECT ON ALL TABLES IN SCHEMA public TO kernfarm_signer;
ALTER DEFAULT PRIVILEGES FOR ROLE kernfarm IN SCHEMA public GRANT SELECT ON TABLES TO kernfarm_signer;
ALTER ROLE kernfarm_signer SET default_transaction_read_only = on;
