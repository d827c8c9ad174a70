import os

if os.environ.get("TEST_SERVICES") != "all":
    collect_ignore_glob = ["test_servers_only*.py"]
