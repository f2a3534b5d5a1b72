"""The demo's source systems: they drop the NYC flights data of 2013 as files, whole or hour by hour."""
