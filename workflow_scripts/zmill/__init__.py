"""zmill: a photometric redshift for every galaxy of a survey."""

__version__ = "0.1.0"
