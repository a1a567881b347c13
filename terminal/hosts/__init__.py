"""One module for each host API; one ``httpx.Auth`` for each way to authenticate."""
