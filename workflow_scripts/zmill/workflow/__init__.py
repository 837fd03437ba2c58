"""What belongs to Snakemake: jobs and their records, dates, input files, GPUs, warnings."""
