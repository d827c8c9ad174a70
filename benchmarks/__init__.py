"""What `defer` costs: whole processes side by side, in one run. See README.md."""
