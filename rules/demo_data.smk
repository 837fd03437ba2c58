rule demo_data:
    """The demo sky: a simulated survey, three catalogues of spectra, and true values, which only tests read."""
    message:
        "Simulating the demo sky"
    output:
        survey=expand(f"{DEMO}/survey/part-{{number}}.parquet", number=range(4)),
        sdss=f"{DEMO}/specz/sdss.fits",
        ned=f"{DEMO}/specz/ned.vot",
        deep=f"{DEMO}/specz/deep.csv",
        truth=[f"{DEMO}/truth/truth.parquet", f"{DEMO}/truth/specz.parquet"],
    params:
        seed=settings.seed,
        area=settings.demo.area,
    log:
        f"{LOGS}/demo_data.log",
    benchmark:
        f"{RESULTS}/benchmarks/demo_data.tsv"
    conda:
        "../envs/data.yaml"
    threads: 1
    script:
        "../workflow_scripts/demo_data.py"
