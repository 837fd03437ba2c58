rule demo_images:
    """Simulated stamps of galaxies with catalogue photometry, their redshifts, and true values, which only tests read."""
    message:
        "Simulating stamps ({wildcards.imager})"
    output:
        survey=f"{DATA}/demo_{{imager}}/survey.parquet",
        redshifts=f"{DATA}/demo_{{imager}}/redshifts.parquet",
        truth=f"{DATA}/demo_{{imager}}/truth.parquet",
    params:
        imager="{imager}",
        stamps=settings.demo.stamps,
        size=settings.demo.stamp_size,
        seed=settings.seed,
    wildcard_constraints:
        imager="|".join(IMAGERS),
    log:
        f"{LOGS}/demo_images/{{imager}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/demo_images/{{imager}}.tsv"
    conda:
        "../envs/data.yaml"
    threads: 1
    script:
        "../workflow_scripts/demo_images.py"
