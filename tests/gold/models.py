"""Models of orders that the tests of strategies build, and what is in their tables."""

from __future__ import annotations

from tests.gold.conftest import Workshop

DAILY = "select day, sum(amount)::bigint as total from {{ ref('stg_orders') }} group by day"

ALL_ORDERS = "select order_id, day, amount from {{ ref('stg_orders') }}"

NEW_ORDERS = """
select order_id, day, amount, _batch_id from {{ ref('stg_orders') }}
{% if is_incremental() %} where _batch_id > (select max(_batch_id) from {{ this }}) {% endif %}
"""


def config(**options: object) -> str:
    return "{{ config(" + ", ".join(f"{name}={value!r}" for name, value in options.items()) + ") }}\n"


def keys(shop: Workshop, model: str, column: str = "order_id") -> list[object]:
    return sorted(row[column] for row in shop.rows(model))
