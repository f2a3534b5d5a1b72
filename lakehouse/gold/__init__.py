"""Gold: dbt models over pinned silver, written as Delta, published as restore points, queried in DuckDB."""
