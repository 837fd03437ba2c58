# The survey's files into a HATS catalogue, and the shards that later stages work through.

EXTINCTION_MAP = [str(Path(DATA, survey.extinction.map))] if survey.extinction.map else []


checkpoint import_survey:
    """The survey as a HATS catalogue: sentinels into states, fluxes into AB magnitudes, bad rows set aside."""
    message:
        "Importing the survey"
    input:
        files=by_content(SOURCES.survey),
        map=by_content(EXTINCTION_MAP),
    output:
        catalog=f"{RESULTS}/survey/partition_info.csv",
        content=f"{RESULTS}/survey/content.json",
        shards=f"{RESULTS}/survey/shards.csv",
        rejected=f"{RESULTS}/rejected/survey.parquet",
        counts=f"{RESULTS}/rejected/survey.json",
    params:
        content=lambda wildcards: content_of(SOURCES.survey + EXTINCTION_MAP, manifest(Path(RESULTS))),
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
