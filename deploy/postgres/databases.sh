#!/bin/sh
# Makes MLflow's database beside Dagster's, with a user who may use that one alone, whose password is that of .env.
# Runs at each start of the stack, as Postgres makes only one database by itself, and only in a new volume.
set -eu
exec psql --no-psqlrc --quiet --tuples-only --set ON_ERROR_STOP=1 <<'SQL'
\getenv password MLFLOW_POSTGRES_PASSWORD
SELECT 'CREATE ROLE mlflow' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mlflow') \gexec
ALTER ROLE mlflow LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'password';
SELECT 'CREATE DATABASE mlflow OWNER mlflow' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'mlflow') \gexec
REVOKE CONNECT ON DATABASE dagster, mlflow, postgres FROM PUBLIC;
SQL
