# Predicting: the chosen model on every row of the survey, shard by shard.


rule predict:
    """A photo-z and a PDF for every row of the survey."""
    input:
        f"{RESULTS}/photoz/partition_info.csv",


rule predict_shard:
    message:
        "Predicting the redshifts of shard {wildcards.shard}"
    input:
        clean=f"{RESULTS}/progress/clean/{{shard}}.json",
        shards=f"{RESULTS}/survey/shards.csv",
        best=f"{RESULTS}/evaluation/best.json",
    output:
        f"{RESULTS}/progress/predict/{{shard}}.json",
    params:
        results=subpath(output[0], ancestor=3),
        bands=survey.bands,
        predict=dump(settings.predict),
    log:
        f"{LOGS}/predict_shard/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/predict_shard/{{shard}}.tsv"
    conda:
        "../envs/models.yaml"
    threads: 16
    resources:
        gpu=1,
    script:
        "../workflow_scripts/predict_shard.py"


rule photoz_catalog:
    """The catalogues of photo-z and PDFs, their rows counted against the survey's."""
    message:
        "Counting the predicted rows and finishing the catalogues"
    input:
        lambda wildcards: expand(f"{RESULTS}/progress/predict/{{shard}}.json", shard=shard_numbers(wildcards)),
        survey=f"{RESULTS}/survey/partition_info.csv",
        clean=f"{RESULTS}/clean/partition_info.csv",
        best=f"{RESULTS}/evaluation/best.json",
    output:
        pdf=[] if settings.predict.pdf == "none" else f"{RESULTS}/pdf/partition_info.csv",
        photoz=f"{RESULTS}/photoz/partition_info.csv",
    params:
        results=subpath(output.photoz, ancestor=2),
        survey=settings.survey,
        pdf=settings.predict.pdf,
    log:
        f"{LOGS}/photoz_catalog.log",
    benchmark:
        f"{RESULTS}/benchmarks/photoz_catalog.tsv"
    conda:
        "../envs/models.yaml"
    threads: 1
    script:
        "../workflow_scripts/photoz_catalog.py"
