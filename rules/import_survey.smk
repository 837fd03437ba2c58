# Import of the survey's files into a HATS catalogue with shards for later stages.


checkpoint import_survey:
    """The survey as a HATS catalogue: sentinels become states, fluxes become AB magnitudes, bad rows are rejected."""
    message:
        "Importing the survey"
    input:
        files=SOURCES.survey,
        further=[file for file in SOURCES.of_import if file not in SOURCES.survey],
    output:
        catalog=f"{RESULTS}/survey/partition_info.csv",
        content=f"{RESULTS}/survey/content.json",
        rejected=f"{RESULTS}/rejected/survey.parquet",
        counts=f"{RESULTS}/rejected/survey.json",
        notes=f"{RESULTS}/import.json",
    params:
        content=lambda wildcards: content_of(SOURCES.of_import, manifest(Path(RESULTS))),
        survey=import_settings(survey),
        partitions=dump(settings.partitions),
        data_dir=lambda wildcards: DATA,
    log:
        f"{LOGS}/import_survey.log",
    benchmark:
        f"{RESULTS}/benchmarks/import_survey.tsv"
    conda:
        "../envs/data.yaml"
    threads: 16
    script:
        "../workflow_scripts/import_survey.py"
