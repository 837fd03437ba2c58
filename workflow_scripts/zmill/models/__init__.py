"""Models of redshift behind one interface, one file each; see `zmill.models.base`."""
