# Clean photometry of every row: missing bands are imputed, cuts and imputed bands are marked.


rule clean_shard:
    """Partitions of one shard, cleaned."""
    message:
        "Cleaning shard {wildcards.shard}"
    input:
        survey=ancient(f"{RESULTS}/survey/partition_info.csv"),
        shard=f"{RESULTS}/survey/shards/{{shard}}.csv",
        imputation=f"{RESULTS}/imputation.json",
    output:
        f"{RESULTS}/progress/clean/{{shard}}.json",
    params:
        survey=ROW_SETTINGS,
        impute=settings.clean.impute,
        clean=f"{RESULTS}/clean",
    log:
        f"{LOGS}/clean_shard/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/clean_shard/{{shard}}.tsv"
    conda:
        "../envs/data.yaml"
    threads: 2
    script:
        "../workflow_scripts/clean_shard.py"


rule clean_catalog:
    """The survey with imputed bands; cuts and imputed bands are marked."""
    message:
        "Finishing the clean catalogue"
    input:
        cleaned,
        survey=f"{RESULTS}/survey/partition_info.csv",
    output:
        f"{RESULTS}/clean/partition_info.csv",
    params:
        name=f"{settings.survey}_clean",
    log:
        f"{LOGS}/clean_catalog.log",
    benchmark:
        f"{RESULTS}/benchmarks/clean_catalog.tsv"
    conda:
        "../envs/data.yaml"
    threads: 1
    script:
        "../workflow_scripts/clean_catalog.py"
