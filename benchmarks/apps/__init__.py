"""The applications that are measured, each with and without Postlude."""
