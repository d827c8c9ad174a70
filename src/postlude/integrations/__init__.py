"""One file per framework; each needs that framework, the package does not."""
