"""The monitoring page: how the platform is, on one page of a cutoff that a person opens without a network.

What belongs here: what the page says, as SQL over the tables of schema monitoring, and its pictures. What
does not: making those tables (core/monitoring/), the template's style (core/templates/), writing the file
(storage/pages.py).

Whatever came from files is escaped by the template; pictures hold letters only. Where nothing is known yet, a
section says so.
"""

from turnover_assets.core.monitoring_page.page import Made, index_page, monitoring_page

__all__ = ["Made", "index_page", "monitoring_page"]
