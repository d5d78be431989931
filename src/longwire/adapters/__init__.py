"""The engines behind the ports: one folder a kind of engine. Only ``longwire.app`` names a concrete one."""
