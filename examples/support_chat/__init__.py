"""A support chat: customers write, agents answer, the application stands between."""
