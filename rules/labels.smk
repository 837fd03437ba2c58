from zmill.workflow.dates import period

# The files of label sources that were read.
READ = f"{RESULTS}/progress/sources/labels.json"
# The date until which answers of services are recent enough.
SERVICES = f"{RESULTS}/progress/sources/services.json"


rule labels:
    """Spectroscopic redshifts of all sources, with qualities on one scale, merged."""
    message:
        "Merging spectroscopic redshifts"
    input:
        files=SOURCES.labels,
        survey=f"{RESULTS}/survey/partition_info.csv",
    output:
        catalog=f"{RESULTS}/specz/partition_info.csv",
        content=f"{RESULTS}/specz/content.json",
        counts=f"{RESULTS}/specz/labels.json",
        rejected=f"{RESULTS}/rejected/specz.parquet",
        conflicts=f"{RESULTS}/rejected/specz_conflicts.parquet",
    params:
        content=lambda wildcards: content_of(SOURCES.labels, Path(READ)),
        period=lambda wildcards: period(Path(SERVICES)),
        services=SERVICES,
        manifest=READ,
        sources=[dump(source) for source in survey.labels],
        labels=dump(settings.labels),
        partitions=dump(settings.partitions),
        radius_arcsec=settings.crossmatch.radius_arcsec,
        data_dir=lambda wildcards: DATA,
    log:
        f"{LOGS}/labels.log",
    benchmark:
        f"{RESULTS}/benchmarks/labels.tsv"
    conda:
        "../envs/data.yaml"
    threads: 1
    script:
        "../workflow_scripts/labels.py"
