rule crossmatch:
    """The survey object that each spectrum belongs to, by position."""
    message:
        "Matching spectra with the survey"
    input:
        survey=f"{RESULTS}/survey/content.json",
        specz=f"{RESULTS}/specz/content.json",
    output:
        matches=f"{RESULTS}/matches.parquet",
        counts=f"{RESULTS}/matches.json",
    params:
        ambiguous=settings.crossmatch.ambiguous,
        inputs=INPUTS_OF_SAMPLE,
    log:
        f"{LOGS}/crossmatch.log",
    benchmark:
        f"{RESULTS}/benchmarks/crossmatch.tsv"
    conda:
        "../envs/data.yaml"
    threads: 2
    script:
        "../workflow_scripts/crossmatch.py"
