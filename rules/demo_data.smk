rule demo_data:
    """The demo sky: a simulated survey, three catalogues of spectra, and the truth that only tests read."""
    message:
        "Simulating the demo sky"
    output:
        survey=expand(f"{DATA}/demo/survey/part-{{number}}.parquet", number=range(4)),
        sdss=f"{DATA}/demo/specz/sdss.fits",
        ned=f"{DATA}/demo/specz/ned.vot",
        deep=f"{DATA}/demo/specz/deep.csv",
        truth=[f"{DATA}/demo/truth/truth.parquet", f"{DATA}/demo/truth/specz.parquet"],
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
    resources:
        mem_mb=2000,
        runtime=10,
    script:
        "../workflow_scripts/demo_data.py"
