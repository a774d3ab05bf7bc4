"""The pages of deployments, one file for each kind of thing a page is about."""
