# The nearest training spectra of some objects, on request: `snakemake retrieve --config 'retrieve=[12, 34]'`.


rule retrieve:
    """The nearest training spectra of the objects that `retrieve` of config.yaml names."""
    message:
        "Retrieving the nearest training spectra"
    input:
        TRAINING,
        cleaned,
        model=retrieving_model,
        clean=f"{RESULTS}/clean/partition_info.csv",
        sample=expand(f"{RESULTS}/sample/{{split}}.parquet", split=["train", "valid", "calib"]),
    output:
        f"{RESULTS}/retrieve.parquet",
    params:
        results=subpath(output[0], parent=True),
        objects=[str(name) for name in settings.retrieve],
        inputs=INPUTS_OF_ROWS,
    log:
        f"{LOGS}/retrieve.log",
    benchmark:
        f"{RESULTS}/benchmarks/retrieve.tsv"
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        gpu=GPU,
    script:
        "../workflow_scripts/retrieve.py"
